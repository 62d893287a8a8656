import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hub_server import TOKEN, HubServer, Repository
from PIL import Image

from ganinfer import BundleError, Sampler
from ganinfer.bundle.archive import Bundle, sign_bundle
from ganinfer.bundle.hub import push
from ganinfer.bundle.places import local_path
from ganinfer.bundle.tree import write_tree
from ganinfer.errors import DataError, Ending

# huggingface_hub's own, of the HTTP client it is built on.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    """The only Hub that this process and those it starts can reach."""
    # huggingface_hub reads these once, when it is imported.
    assert "huggingface_hub" not in sys.modules
    hub = HubServer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("huggingface")))
        patch.setenv("NO_PROXY", "127.0.0.1")
        for name in ("DISABLE_TELEMETRY", "DISABLE_XET", "DISABLE_PROGRESS_BARS"):
            patch.setenv(f"HF_HUB_{name}", "1")
        for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN_PATH"):
            patch.delenv(name, raising=False)
        pytest.importorskip("huggingface_hub")
        yield hub
    hub.close()


@pytest.fixture
def hub(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """An empty Hub, and the token of its owner."""
    server.repositories.clear()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return server


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository of the test's own, as downloads are kept by name."""
    return f"owner/{request.node.name.replace('[', '-').replace(']', '')[:90]}"


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


def test_what_was_pushed_gives_the_same_images(hub: HubServer, bundle: Path, name: str) -> None:
    pushed = push(bundle, name)
    assert pushed.url.startswith(f"{hub.url}/{name}/commit/")
    assert sorted(hub.repositories[name].files()) == ["README.md", "model.gan", "preview.png"]
    assert hub.repositories[name].files()["preview.png"] == (bundle / "preview.png").read_bytes()
    with Sampler(bundle) as here, Sampler(f"hf://{name}") as there:
        assert np.array_equal(here.sample(8), there.sample(8))


def test_both_forms_of_a_bundle_are_uploaded_as_one_file(hub, bundle, tmp_path, name) -> None:
    with Bundle(bundle) as opened:
        write_tree(tmp_path / "x.gan", opened.tree(), single_file=True)
    for path in (bundle, tmp_path / "x.gan"):
        push(path, name)
        assert hub.repositories[name].files()["model.gan"] == (tmp_path / "x.gan").read_bytes()


def test_a_branch_and_a_commit_are_revisions(hub: HubServer, bundle: Path, name: str) -> None:
    push(bundle, name, revision="trial")
    with pytest.raises(BundleError, match=r"no model.gan in this repository; .* gan push"):
        local_path(f"hf://{name}")
    repository = hub.repositories[name]
    commit = repository.branches["trial"]
    repository.commit("trial", {"model.gan": b"another"})
    Bundle(local_path(f"hf://{name}@{commit}")).close()
    assert local_path(f"hf://{name}@trial").read_bytes() == b"another"
    assert f"hf://{name}@trial" in repository.files("trial")["README.md"].decode()


def test_the_newest_bundle_is_fetched(hub: HubServer, bundle: Path, name: str) -> None:
    push(bundle, name)
    Bundle(local_path(f"hf://{name}")).close()
    hub.repositories[name].commit("main", {"model.gan": b"newer"})
    assert local_path(f"hf://{name}").read_bytes() == b"newer"


def test_a_bundle_that_was_changed_on_the_hub_is_refused(hub, bundle, name) -> None:
    push(bundle, name)
    data = bytearray(hub.repositories[name].files()["model.gan"])
    data[len(data) // 2] ^= 1
    hub.repositories[name].commit("main", {"model.gan": bytes(data)})
    with pytest.raises(BundleError, match="closing sha256 does not match"):
        Sampler(f"hf://{name}")


def test_a_signature_goes_along(hub: HubServer, bundle: Path, tmp_path: Path, name: str) -> None:
    pytest.importorskip("cryptography")
    from ganinfer.bundle.signature import make_keys, open_private_key

    public = make_keys(tmp_path / "k.pem")
    folder = Path(shutil.copytree(bundle, tmp_path / "x.gan"))
    push(folder, name)
    with pytest.raises(BundleError, match="not signed"):
        Sampler(f"hf://{name}", public_key=public)
    sign_bundle(folder, open_private_key(tmp_path / "k.pem"))
    push(folder, name)
    Sampler(f"hf://{name}", public_key=public).close()


def test_a_card_that_nobody_edited_is_renewed(hub: HubServer, bundle: Path, name: str) -> None:
    assert not push(bundle, name, revision="a").card_kept
    first = hub.repositories[name].files("a")["README.md"]
    hub.repositories[name].commit("main", {"README.md": first})
    assert not push(bundle, name).card_kept
    assert b"@a" in first
    assert b"@a" not in hub.repositories[name].files()["README.md"]


def test_an_edited_card_is_left_alone(hub: HubServer, bundle: Path, name: str) -> None:
    push(bundle, name)
    edited = hub.repositories[name].files()["README.md"] + b"Mine.\n"
    hub.repositories[name].commit("main", {"README.md": edited, "model.gan": b"old"})
    assert push(bundle, name).card_kept
    assert hub.repositories[name].files()["README.md"] == edited
    assert hub.repositories[name].files()["model.gan"] != b"old"


def test_a_private_repository_is_for_its_owner_alone(hub, bundle, name, monkeypatch) -> None:
    push(bundle, name, private=True)
    assert hub.repositories[name].private
    with monkeypatch.context() as stranger:
        stranger.delenv("HF_TOKEN")
        with pytest.raises(BundleError, match="or not for you; .* hf auth login"):
            local_path(f"hf://{name}")
    Bundle(local_path(f"hf://{name}")).close()


def test_private_never_uploads_to_what_is_public(hub: HubServer, bundle: Path, name: str) -> None:
    hub.repositories[name] = Repository(private=False)
    with pytest.raises(BundleError, match="is there and is public"):
        push(bundle, name, private=True)
    assert hub.repositories[name].files() == {}


def test_a_damaged_bundle_is_not_pushed(hub: HubServer, bundle, tmp_path, name) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / "x.gan"))
    (folder / "preview.png").write_bytes(b"x")
    with pytest.raises(BundleError, match="preview.png"):
        push(folder, name)
    assert hub.repositories == {}


@pytest.mark.parametrize("token", [None, "hf_stranger"])
def test_pushing_without_the_right_is_an_error_in_words(hub, bundle, name, monkeypatch, token):
    hub.repositories[name] = Repository(private=False)
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(BundleError, match=rf"^hf://{name}: .* hf auth login"):
        push(bundle, name)
    assert hub.repositories[name].files() == {}


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("hf://owner/nothing", "there is no such repository, or not for you; check the name"),
        ("hf://owner/there@nowhere", "there is no such branch, tag or commit"),
        ("hf://owner/there", "no model.gan in this repository"),
        ("hf://there", "expected hf://owner/name or hf://owner/name@revision"),
        ("hf://a/b/c", "expected hf://owner/name"),
        ("hf://", "expected hf://owner/name"),
        ("hf://owner/a--b", "not a name that a repository can have"),
    ],
)
def test_what_is_not_there_is_told_in_words(hub: HubServer, wanted: str, words: str) -> None:
    hub.repositories["owner/there"] = Repository(private=False)
    with pytest.raises(BundleError) as refusal:
        Sampler(wanted)
    assert str(refusal.value).startswith(f"{wanted}: {words}")


def test_a_path_that_lost_a_slash_is_understood(hub: HubServer) -> None:
    with pytest.raises(BundleError, match="no such repository"):
        Sampler(Path("hf://owner/nothing"))


def test_a_name_that_no_repository_can_have_is_not_pushed_to(hub, bundle: Path) -> None:
    for wanted in ("x", "a/b/c", "hf://a/b", "a/b@c"):
        with pytest.raises(BundleError, match=f"{wanted}: expected owner/name"):
            push(bundle, wanted)


def test_without_the_hub_the_cache_serves(hub, bundle, name, gan, monkeypatch) -> None:
    push(bundle, name)
    local_path(f"hf://{name}")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    assert gan("inspect", f"hf://{name}").returncode == 0
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # or it would try for half a minute
    for command in (("inspect", "hf://owner/new"), ("push", bundle, name)):
        result = gan(*command)
        assert result.returncode == Ending.DAMAGED
        assert "HF_HUB_OFFLINE is set" in result.stderr
        assert "Traceback" not in result.stderr


def test_a_cache_that_cannot_be_written_is_told_from_the_hub(
    hub, bundle, name, gan, tmp_path, monkeypatch
) -> None:
    push(bundle, name)
    (tmp_path / "occupied").touch()
    monkeypatch.setenv("HF_HOME", str(tmp_path / "occupied"))
    result = gan("inspect", f"hf://{name}")
    assert result.returncode == Ending.DAMAGED
    assert f"hf://{name}: huggingface_hub's cache, {tmp_path}/occupied/hub, cannot be used" in (
        result.stderr
    )
    assert "HF_HOME" in result.stderr


def test_the_gan_command_pushes_and_takes_what_is_on_the_hub(hub, bundle, name, gan, tmp_path):
    result = gan("push", bundle, name, "--private")
    assert result.returncode == 0, result.stderr
    assert "/commit/" in result.stdout
    for command in (
        ("inspect", f"hf://{name}"),
        ("sample", f"hf://{name}@main", "--seeds", "0", "-o", "x.png"),
        ("verify", f"hf://{name}", "--backend", "onnxruntime"),
    ):
        result = gan(*command, cwd=tmp_path)
        assert result.returncode == 0, (command, result.stdout + result.stderr)
    for command in (
        ("evaluate", "hf://owner/none"),
        ("statistics", "hf://owner/none", "-o", "x.npz"),
        ("report", "run", "--bundle", "hf://owner/none"),
    ):
        result = gan(*command, cwd=tmp_path)
        assert result.returncode == Ending.MISSING
        assert "hf://owner/none: there is no such repository" in result.stderr


def test_without_huggingface_hub_the_extra_is_named() -> None:
    code = """
import sys
sys.modules['huggingface_hub'] = None
from ganinfer import MissingExtra, Sampler
try:
    Sampler('hf://owner/name')
except MissingExtra as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'ganpipe[hub]'" in result.stdout, result.stderr


def test_a_dataset_of_the_hub_is_prepared(hub: HubServer, tmp_path: Path, name: str) -> None:
    # Here, as the Hub that a process talks to is chosen once, when huggingface_hub is imported.
    from gantrain.data.prepare import prepare

    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    repository = hub.repositories[name] = Repository(private=False)
    repository.commit("main", {f"pics/train/{n % 2}/{n}.png": png(i) for n, i in enumerate(images)})
    repository.commit("main", {"pics/test/0/9.png": b"", "README.md": b"#", "load.py": b"exit()"})
    for n, source in enumerate((f"hf://datasets/{name}", f"hf://datasets/{name}@main/pics")):
        made = prepare(source, tmp_path / f"data{n}")
        assert (made.num_images, made.classes) == (4, ["0", "1"])
        found = np.load(tmp_path / f"data{n}" / "images.npy")
        assert np.array_equal(found, images[[0, 2, 1, 3]])
    blob = next(
        path for path in Path(os.environ["HF_HOME"]).rglob("blobs/*") if name[6:] in str(path)
    )
    blob.write_bytes(b"damaged")
    with pytest.raises(DataError, match="is damaged; remove it, and it is fetched again"):
        prepare(f"hf://datasets/{name}", tmp_path / "again")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("hf://datasets/nobody/nothing", "there is no such repository"),
        ("hf://datasets/only-owner", "expected hf://datasets/owner/name"),
        ("hf://models/a/b", "expected hf://datasets/owner/name"),
    ],
)
def test_a_dataset_that_is_not_there_is_told(hub, tmp_path: Path, source: str, words: str) -> None:
    from gantrain.data.prepare import prepare

    with pytest.raises(DataError, match=f"{source}: {words}"):
        prepare(source, tmp_path / "data")
