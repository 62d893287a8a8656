"""The bundle: a directory `name.gan/`, or the same tree in one uncompressed zip file.

manifest.json      what the model is, and the sha256 and size of every other file
manifest.sha256    the manifest's own, in the format of sha256sum
manifest.sig       of a signed bundle: see ganinfer.bundle.signature
onnx/<precision>.onnx   engines/<key>.plan   golden/images.npy   parity.json   preview.png
onnx/<sha256>.weights   of a graph that is too large for one ONNX file

Only JSON and pickle-free arrays are ever parsed. Whatever the manifest does not declare, or
declares differently, is refused.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from ganinfer.bundle.foreign import foreign_folder
from ganinfer.bundle.large_onnx import WEIGHTS_SUFFIX, LargeOnnx
from ganinfer.bundle.manifest import (
    MANIFEST,
    MANIFEST_DIGEST,
    FileEntry,
    Manifest,
    digest_line,
    parse_manifest,
)
from ganinfer.bundle.signature import (
    SIGNATURE,
    SIGNATURE_BYTES,
    Check,
    PublicKey,
    Sign,
    open_public_key,
    well_formed,
)
from ganinfer.bundle.tree import StoredTree, write_tree
from ganinfer.errors import BundleError, BundleNotFound
from ganinfer.files import sha256_bytes

_MAX_MANIFEST_BYTES = 4 << 20


class Bundle:
    """An opened bundle whose every byte has been checked against its manifest.

    Attributes:
        path: where it lies. manifest: what it holds. sha256: of manifest.json.
        signature: its manifest.sig, if it is signed.
    """

    def __init__(self, path: Path, *, public_key: PublicKey | None = None) -> None:
        """Open and check a bundle.

        Args:
            path: where it lies.
            public_key: of whoever must have signed it; PEM, or the path of such a file.

        Raises:
            BundleError: names the file, what was found, what was expected and what to do.
            ConfigError: the key cannot be used.
        """
        self.path = path
        check = None if public_key is None else open_public_key(public_key)
        if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises if the name is too long
            raise BundleNotFound(f"{path}: no such bundle; make one with: gan export RUN -o {path}")
        self._stored = StoredTree(path)
        try:
            found = self._stored.sizes()
            self._manifest_bytes = self._read_manifest(found)
            self.signature = self._read_signature(found, check)
            self.sha256 = self._check_digest()
            self.manifest = parse_manifest(self._manifest_bytes, where=f"{path}: {MANIFEST}")
            self._check_files(found)
        except BundleError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise BundleError(f"{path}: cannot be read ({error})") from None

    @property
    def name(self) -> str:
        """The file name, without .gan."""
        return self.path.absolute().name.removesuffix(".gan")

    def read(self, name: str) -> bytes:
        """The content of a declared file, checked against the manifest."""
        declared = self.manifest.files[name]
        try:
            data = self._stored.read(name, declared.size)
        except OSError as error:
            raise BundleError(f"{self.path}: {name}: cannot be read ({error})") from None
        if sha256_bytes(data) != declared.sha256:
            raise self._damaged(name, f"sha256 {sha256_bytes(data)}", declared.sha256)
        return data

    def read_graph(self, precision: str) -> bytes:
        """The ONNX file of a precision; see `read_onnx`."""
        return self.read_onnx(
            next(g.path for g in self.manifest.graphs if g.precision == precision)
        )

    def read_onnx(self, name: str) -> bytes:
        """An ONNX file; a `LargeOnnx` if its weights lie beside it.

        Refused if it would make a runtime read any other file.
        """
        from ganinfer.bundle.onnx_wire import external_data

        data = self.read(name)
        try:
            places = external_data(data)
        except ValueError as error:
            raise BundleError(f"{self.path}: {name}: not an ONNX file ({error})") from None
        if not places:
            return data
        location = places[0].location
        beside = f"{name.rpartition('/')[0]}/{location}"
        entry = self.manifest.files.get(beside)
        if entry is None or location != f"{entry.sha256}{WEIGHTS_SUFFIX}":
            raise BundleError(
                f"{self.path}: {name}: keeps weights outside the file, in {location[:100]!r};"
                f" expected none, or a file of the bundle called <sha256>{WEIGHTS_SUFFIX}."
                " Export it again"
            )
        if any(p.location != location or p.offset + p.length > entry.size for p in places):
            raise BundleError(
                f"{self.path}: {name}: keeps weights outside the file, beyond the end of"
                f" {beside} or in another one. Export it again"
            )
        return LargeOnnx(data, self.read(beside), location)

    def tree(self, sign: Sign | None = None) -> dict[str, bytes]:
        """The content of every file, in the order of writing; signed anew, if told how."""
        signature = self.signature if sign is None else sign(self._manifest_bytes)
        own = _own_files(self._manifest_bytes, signature)
        return own | {name: self.read(name) for name in sorted(self.manifest.files)}

    def close(self) -> None:
        """Close the file of a single-file bundle."""
        self._stored.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_manifest(self, found: dict[str, int]) -> bytes:
        for name in (MANIFEST, MANIFEST_DIGEST):
            if name not in found:
                known = foreign_folder(self.path)
                told = f"no {name} in it; this is not a bundle, or half of one"
                raise BundleError(f"{self.path}: {f'no bundle, but {known}' if known else told}")
        if found[MANIFEST] > _MAX_MANIFEST_BYTES:
            raise self._damaged(MANIFEST, f"{found[MANIFEST]} bytes", f"<= {_MAX_MANIFEST_BYTES}")
        return self._stored.read(MANIFEST, found[MANIFEST])

    def _read_signature(self, found: dict[str, int], check: Check | None) -> bytes | None:
        if SIGNATURE not in found:
            if check is None:
                return None
            raise BundleError(
                f"{self.path}: no {SIGNATURE} in it: it is not signed, and public_key asks for a"
                " signature. Get the signed one, or sign it with: gan sign"
            )
        line = self._stored.read(SIGNATURE, SIGNATURE_BYTES)
        if not well_formed(line):
            raise self._damaged(SIGNATURE, "something else", "a signature: one line of base64")
        if check is not None and not check(self._manifest_bytes, line):
            raise BundleError(
                f"{self.path}: {SIGNATURE} does not fit {MANIFEST} and the given public key: the"
                " manifest was changed, or another key has signed it. Do not use this bundle; get"
                " it anew from whoever signed it"
            )
        return line

    def _check_digest(self) -> str:
        found = sha256_bytes(self._manifest_bytes)
        if self._stored.read(MANIFEST_DIGEST, 1024) != digest_line(self._manifest_bytes):
            raise self._damaged(MANIFEST, f"sha256 {found}", f"that of {MANIFEST_DIGEST}")
        return found

    def _check_files(self, found: dict[str, int]) -> None:
        declared = self.manifest.files
        if extra := sorted(found.keys() - declared.keys() - {MANIFEST, MANIFEST_DIGEST, SIGNATURE}):
            raise BundleError(
                f"{self.path}: {extra[0]} is not in the manifest ({len(extra)} such);"
                " remove it, or get the bundle anew"
            )
        needed = declared.keys() | self.manifest.named_files()
        if missing := sorted(needed - (found.keys() & declared.keys())):
            raise BundleError(f"{self.path}: {missing[0]} is missing; copy the bundle again")
        for name, entry in declared.items():
            if found[name] != entry.size:
                raise self._damaged(name, f"{found[name]} bytes", f"{entry.size} bytes")
            self.read(name)

    def _damaged(self, name: str, found: str, expected: str) -> BundleError:
        return BundleError(
            f"{self.path}: {name}: found {found}, expected {expected}; the file was changed or"
            " damaged on the way. Copy the bundle again"
        )


def write_bundle(
    path: Path,
    manifest: Manifest,
    files: Mapping[str, bytes],
    *,
    single_file: bool = False,
    sign: Sign | None = None,
) -> None:
    """Write a bundle aside, then rename it into place; an older bundle there is replaced.

    Killed at any point, the old bundle or the new one is at `path`, never half of one.

    Args:
        path: where the bundle shall be.
        manifest: its `files` is filled in here.
        files: relative path -> content.
        single_file: write one uncompressed zip file instead of a directory.
        sign: also write manifest.sig; see `ganinfer.bundle.signature.open_private_key`.

    Raises:
        BundleError: something that is no bundle is at `path`.
        OSError: the disk is full or not writable; nothing is left behind.
    """
    check_destination(path)
    entries = {
        name: FileEntry(sha256=sha256_bytes(data), size=len(data))
        for name, data in sorted(files.items())
    }
    text = manifest.model_copy(update={"files": entries}).to_json()
    own = _own_files(text, sign and sign(text))
    write_tree(path, own | dict(sorted(files.items())), single_file=single_file)


def sign_bundle(path: Path, sign: Sign) -> None:
    """Sign a bundle where it lies; an older signature is replaced, every other byte stays.

    Args:
        path: the bundle, in either form.
        sign: see `ganinfer.bundle.signature.open_private_key`.

    Raises:
        BundleError: it is damaged, or there is none.
        OSError: the disk is full or not writable; the bundle is as it was.
    """
    with Bundle(path) as bundle:
        tree = bundle.tree(sign)
    write_tree(path, tree, single_file=not path.is_dir())


def repack(path: Path, to: Path, *, single_file: bool) -> None:
    """Write a bundle in its other form: the same files, and the same sha256.

    Args:
        path: the bundle, in either form.
        to: where it shall be; a bundle there is replaced.
        single_file: as one file, instead of a folder.

    Raises:
        BundleError: it is damaged, or there is none; or what is at `to` is no bundle.
        OSError: the disk is full or not writable; nothing is left behind.
    """
    check_destination(to)
    with Bundle(path) as bundle:
        tree = bundle.tree()
    write_tree(to, tree, single_file=single_file)


def check_destination(path: Path) -> None:
    """Refuse to replace anything that is not a bundle.

    Raises:
        BundleError: a file or folder of another kind is there.
    """
    if path.exists() and not is_bundle(path):
        raise BundleError(f"{path}: exists and is not a bundle; choose another name")


def is_bundle(path: Path) -> bool:
    """Is this something that `write_bundle` wrote? Its files are not checked."""
    try:
        if path.is_dir():
            manifest = (path / MANIFEST).read_bytes()
            return (path / MANIFEST_DIGEST).read_bytes() == digest_line(manifest)
        StoredTree(path).close()
    except (OSError, BundleError):
        return False
    return True


def _own_files(manifest: bytes, signature: bytes | None) -> dict[str, bytes]:
    """The files that a manifest does not declare: itself, its digest and its signature."""
    own = {MANIFEST: manifest, MANIFEST_DIGEST: digest_line(manifest)}
    return own if signature is None else {**own, SIGNATURE: signature}
