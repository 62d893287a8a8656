import base64
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ganinfer import Sampler
from ganinfer.bundle.archive import Bundle, sign_bundle, write_bundle
from ganinfer.bundle.manifest import MANIFEST, MANIFEST_DIGEST, digest_line
from ganinfer.bundle.signature import SIGNATURE, make_keys, open_private_key, open_public_key
from ganinfer.bundle.tree import write_tree
from ganinfer.errors import BundleError, ConfigError, Ending

pytest.importorskip("cryptography")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "signing.pem"
    make_keys(path)
    return path


@pytest.fixture(scope="module")
def public(key: Path) -> Path:
    return key.with_name("signing.pub.pem")


@pytest.fixture(scope="module")
def other_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "other.pem"
    make_keys(path)
    return path


@pytest.fixture(params=["folder", "file"])
def signed(bundle: Path, key: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A signed bundle of one's own, in either form."""
    path = tmp_path / "x.gan"
    with Bundle(bundle) as opened:
        write_tree(path, opened.tree(), single_file=request.param == "file")
    sign_bundle(path, open_private_key(key))
    return path


def change(path: Path, **files: bytes | None) -> None:
    """Put other bytes into a bundle of either form; None removes a file."""
    names = {"manifest": MANIFEST, "digest": MANIFEST_DIGEST, "signature": SIGNATURE}
    with Bundle(path) as opened:
        tree = opened.tree() | {names[name]: data for name, data in files.items()}
    whole = {name: data for name, data in tree.items() if data is not None}
    write_tree(path, whole, single_file=path.is_file())


def test_a_signed_bundle_opens_with_its_key_and_without(signed: Path, public: Path) -> None:
    for given in (None, public, str(public), public.read_bytes(), public.read_text()):
        with Bundle(signed, public_key=given) as opened:
            assert opened.signature is not None
    with Sampler(signed, public_key=public) as sampler:
        assert sampler.sample(1).shape == (1, 16, 16, 3)


def test_signing_adds_one_line_and_changes_nothing_else(bundle, signed, key, public) -> None:
    with Bundle(bundle) as before, Bundle(signed) as after:
        assert list(after.tree())[:3] == [MANIFEST, MANIFEST_DIGEST, SIGNATURE]
        line = after.tree()[SIGNATURE]
        assert before.tree() == {n: data for n, data in after.tree().items() if n != SIGNATURE}
    assert line == base64.b64encode(base64.b64decode(line)) + b"\n"
    sign_bundle(signed, open_private_key(key))
    with Bundle(signed, public_key=public) as again:
        assert again.signature == line


def test_signed_at_export_it_is_the_same_file(bundle, signed, key, tmp_path) -> None:
    with Bundle(bundle) as opened:
        files = {name: opened.read(name) for name in opened.manifest.files}
        sign = open_private_key(key)
        write_bundle(tmp_path / "y.gan", opened.manifest, files, single_file=True, sign=sign)
    if signed.is_file():
        assert (tmp_path / "y.gan").read_bytes() == signed.read_bytes()
    with Bundle(tmp_path / "y.gan") as one, Bundle(signed) as two:
        assert one.tree() == two.tree()


def test_an_unsigned_bundle_is_refused(bundle: Path, public: Path) -> None:
    with pytest.raises(BundleError, match=r"no manifest.sig in it: it is not signed"):
        Sampler(bundle, public_key=public)


def test_a_stripped_signature_is_refused(signed: Path, public: Path) -> None:
    change(signed, signature=None)
    Bundle(signed).close()
    with pytest.raises(BundleError, match="not signed"):
        Bundle(signed, public_key=public)


def test_a_signature_by_another_key_is_refused(signed: Path, public: Path, other_key: Path) -> None:
    sign_bundle(signed, open_private_key(other_key))
    with pytest.raises(BundleError, match="another key has signed it"):
        Bundle(signed, public_key=public)


def test_a_changed_manifest_is_refused_though_its_digest_fits(signed: Path, public: Path) -> None:
    with Bundle(signed) as opened:
        manifest = opened.tree()[MANIFEST].replace(b'"ema": true', b'"ema": false')
    change(signed, manifest=manifest, digest=digest_line(manifest))
    Bundle(signed).close()
    with pytest.raises(BundleError, match="the manifest was changed"):
        Bundle(signed, public_key=public)


def test_the_signature_is_checked_before_anything_is_parsed(signed: Path, public: Path) -> None:
    change(signed, manifest=b"[" * 100_000, digest=b"")
    with pytest.raises(BundleError, match=r"manifest.sig does not fit"):
        Bundle(signed, public_key=public)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"\0" * 89,
        base64.b64encode(bytes(64)),
        base64.b64encode(bytes(63)) + b"\n",
        base64.b64encode(bytes(64)) + b"\n\n",
        base64.b64encode(bytes(64)).replace(b"A==", b"B==") + b"\n",
        b"A" * 10_000_000,
    ],
    ids=["empty", "newline", "zeros", "no end", "short", "long", "not canonical", "giant"],
)
def test_a_file_that_is_no_signature_is_refused_with_a_key_and_without(
    signed: Path, public: Path, data: bytes
) -> None:
    change(signed, signature=data)
    for given in (None, public):
        with pytest.raises(BundleError, match=r"manifest.sig: found something else, expected a"):
            Bundle(signed, public_key=given)


def test_any_flipped_byte_of_a_signature_is_noticed(bundle, key, public, tmp_path) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / "x.gan"))
    sign_bundle(folder, open_private_key(key))
    line = (folder / SIGNATURE).read_bytes()
    for place in range(len(line)):
        damaged = bytearray(line)
        damaged[place] ^= 1 << place % 8
        (folder / SIGNATURE).write_bytes(damaged)
        with pytest.raises(BundleError, match=SIGNATURE):
            Bundle(folder, public_key=public)


def test_a_link_for_a_signature_is_refused(bundle: Path, key: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / "x.gan"))
    sign_bundle(folder, open_private_key(key))
    (folder / SIGNATURE).rename(tmp_path / "elsewhere")
    (folder / SIGNATURE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match=r"manifest.sig is a link"):
        Bundle(folder)


def test_no_other_undeclared_file_is_let_in(bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / "x.gan"))
    (folder / "onnx" / SIGNATURE).write_bytes(base64.b64encode(bytes(64)) + b"\n")
    with pytest.raises(BundleError, match=r"onnx/manifest.sig is not in the manifest"):
        Bundle(folder)


def test_a_damaged_bundle_is_not_signed(bundle: Path, key: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / "x.gan"))
    (folder / "preview.png").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"preview.png"):
        sign_bundle(folder, open_private_key(key))
    assert not (folder / SIGNATURE).exists()


def test_keys_are_never_replaced_and_the_private_one_is_its_owners(tmp_path: Path) -> None:
    public = make_keys(tmp_path / "a.pem")
    assert stat.S_IMODE((tmp_path / "a.pem").stat().st_mode) == 0o600
    with pytest.raises(ConfigError, match=r"a.pem: exists"):
        make_keys(tmp_path / "a.pem")
    (tmp_path / "a.pem").unlink()
    with pytest.raises(ConfigError, match=r"a.pub.pem: exists"):
        make_keys(tmp_path / "a.pem")
    assert os.listdir(tmp_path) == [public.name]


@pytest.fixture
def openssl(tmp_path: Path):
    """Call openssl in an empty folder."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl")

    def call(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=tmp_path, check=True, capture_output=True)

    return call


def test_keys_and_signatures_are_those_of_openssl(openssl, bundle: Path, tmp_path: Path) -> None:
    openssl("genpkey", "-algorithm", "ed25519", "-out", "k.pem")
    openssl("pkey", "-in", "k.pem", "-pubout", "-out", "k.pub.pem")
    folder = Path(shutil.copytree(bundle, tmp_path / "x.gan"))
    sign_bundle(folder, open_private_key(tmp_path / "k.pem"))
    Bundle(folder, public_key=tmp_path / "k.pub.pem").close()
    (tmp_path / "raw").write_bytes(base64.b64decode((folder / SIGNATURE).read_bytes()))
    verify = ["-verify", "-pubin", "-inkey", "k.pub.pem", "-rawin", "-sigfile", "raw"]
    openssl("pkeyutl", *verify, "-in", f"x.gan/{MANIFEST}")


def test_a_private_key_under_a_password_is_named(openssl, tmp_path: Path) -> None:
    openssl("genpkey", "-algorithm", "ed25519", "-aes256", "-pass", "pass:x", "-out", "k.pem")
    with pytest.raises(ConfigError, match=r"k.pem: a key under a password; take that off"):
        open_private_key(tmp_path / "k.pem")


def test_a_key_of_another_kind_is_named(openssl, tmp_path: Path) -> None:
    openssl("genpkey", "-algorithm", "rsa", "-out", "k.pem")
    openssl("pkey", "-in", "k.pem", "-pubout", "-out", "k.pub.pem")
    with pytest.raises(ConfigError, match=r"k.pem: found RSAPrivate; expected Ed25519"):
        open_private_key(tmp_path / "k.pem")
    with pytest.raises(ConfigError, match=r"k.pub.pem: found RSAPublic; expected Ed25519"):
        open_public_key(tmp_path / "k.pub.pem")


def test_what_is_no_key_is_named(key: Path, public: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ConfigError, match=r"notes.txt: no private key in PEM; .* gan keygen"):
        open_private_key(tmp_path / "notes.txt")
    with pytest.raises(ConfigError, match=r"signing.pub.pem: no private key"):
        open_private_key(public)
    with pytest.raises(ConfigError, match=r"signing.pem: no public key in PEM; give the"):
        open_public_key(key)
    with pytest.raises(ConfigError, match=r"nowhere.pem: the key cannot be read"):
        open_public_key("nowhere.pem")
    with pytest.raises(ConfigError, match=r"public_key: no public key"):
        open_public_key(b"nonsense")


def test_the_gan_command_signs_and_checks(gan, bundle, other_key, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "x.gan")
    for arguments in (
        ("keygen", "k.pem"),
        ("sign", "x.gan", "--key", "k.pem"),
        ("verify", "x.gan", "--public-key", "k.pub.pem", "--backend", "onnxruntime"),
        ("sample", "x.gan", "--public-key", "k.pub.pem", "--seeds", "0"),
    ):
        result = gan(*arguments, cwd=tmp_path)
        assert result.returncode == 0, (arguments, result.stdout + result.stderr)
    assert "signed" in gan("inspect", "x.gan", cwd=tmp_path).stdout
    wrong = gan(
        "verify", "x.gan", "--public-key", other_key.with_name("other.pub.pem"), cwd=tmp_path
    )
    assert wrong.returncode == Ending.DAMAGED
    assert "another key has signed it" in wrong.stderr


def test_without_cryptography_the_extra_is_named(bundle: Path, public: Path) -> None:
    code = f"""
import sys
sys.modules['cryptography'] = None
from ganinfer import MissingExtra, Sampler
try:
    Sampler({str(bundle)!r}, public_key={str(public)!r})
except MissingExtra as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'ganpipe[signing]'" in result.stdout, result.stderr
