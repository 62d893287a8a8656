"""The bundle: a directory `name.gan/`, or the same tree in one uncompressed zip file.

manifest.json      what the model is, and the sha256 and size of every other file
manifest.sha256    the manifest's own, in the format of sha256sum
manifest.sig       of a signed bundle: see ganinfer.signature
onnx/<precision>.onnx   engines/<key>.plan   golden/images.npy   parity.json   preview.png

Only JSON and pickle-free arrays are ever parsed. Whatever the manifest does not declare, or
declares differently, is refused.
"""

import ctypes
import hashlib
import json
import math
import os
import re
import shutil
import stat
import time
import uuid
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ganinfer.errors import BundleError
from ganinfer.files import sha256_bytes, write_atomic
from ganinfer.lookup import explain
from ganinfer.signature import (
    SIGNATURE_BYTES,
    Check,
    PublicKey,
    Sign,
    open_public_key,
    well_formed,
)

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
MANIFEST_DIGEST = "manifest.sha256"
SIGNATURE = "manifest.sig"

_MAX_MANIFEST_BYTES = 4 << 20
_ABANDONED_S = 3600.0  # no bundle is that long in the writing
_SAFE_PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_DIGEST_PREFIX = b"sha256:"
_COMMENT_BYTES = len(_DIGEST_PREFIX) + 64

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
Interval = tuple[float, float]


def _rising(profile: list[int]) -> list[int]:
    if profile != sorted(profile):
        raise ValueError("expected smallest, likeliest and largest batch")
    return profile


BatchProfile = Annotated[
    list[Annotated[int, Field(ge=1)]], Field(min_length=3, max_length=3), AfterValidator(_rising)
]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class FileEntry(_Part):
    """A file's fingerprint."""

    sha256: Sha256
    size: Count


class TruncationInput(_Part):
    """The range of a graph's input "truncation", and its value for those who ask for none.

    statistics: truncations that batch-norm statistics were taken for, if any.
    """

    least: float
    largest: float
    untruncated: float
    statistics: list[float] = []


class Model(_Part):
    """What the generator takes and gives. classes is empty in an unconditional model.

    truncation_modes: "resample" and "scale" change the latents; in mode "network" the generator
        does it all, as StyleGAN2 does with psi.
    default_truncation: what it was trained with, for those who ask for none; of mode "resample".
    truncation_input: None if the graph has no such input.
    class_input: "weights" if y is a weight for each class, and classes can be mixed.
    macs: multiply-accumulates of one image in the fp32 graph; bundles of older versions do not say.
    """

    family: str
    resolution: Annotated[int, Field(ge=1, le=16384)]
    channels: Literal[1, 3]
    classes: list[str]
    z_dim: Annotated[int, Field(ge=1, le=65536)]
    z_distribution: Literal["normal", "uniform"]
    truncation_modes: list[Literal["resample", "scale", "network"]]
    default_truncation: Annotated[float, Field(gt=0)] | None = None
    truncation_input: TruncationInput | None = None
    class_input: Literal["index", "weights"] = "index"
    macs: Count | None = None


class Graph(_Part):
    """An ONNX file: z float32 (N, Z) [, y int64 (N,)] [, truncation float32 (N,)] -> images.

    They are uint8 (N, H, W, C). A graph that takes weights has y float32 (N, K).
    """

    path: str
    precision: Precision


class Engine(_Part):
    """A TensorRT plan. status "pending": it could not run where it was built.

    report: JSON, see ganinfer.engine_report. profiles: smallest, likeliest and largest batch.
    """

    path: str
    report: str
    key: Sha256
    onnx_sha256: Sha256
    product: Literal["tensorrt", "tensorrt_rtx"]
    version: str
    platform: str
    target: str
    precision: Precision
    profiles: Annotated[list[BatchProfile], Field(min_length=1)]
    status: Literal["verified", "pending"]


class Golden(_Part):
    """Seeds, labels, truncations (None asks for none), and what torch in float32 gives for them."""

    path: str
    seeds: list[Count]
    labels: list[Count] | None
    truncations: list[float | None]


class WitnessFiles(_Part):
    """What `gan verify` needs to judge a host's images without torch: see ganinfer.witness."""

    moments: str
    extractor: str
    num_images: Annotated[int, Field(ge=2, le=2**32)]
    num_groups: Annotated[int, Field(ge=1, le=2**16)]
    num_features: Annotated[int, Field(ge=1, le=2**12)]


class Discriminator(_Part):
    """An ONNX file: images uint8 (N, H, W, C) [, y int64 (N,)] -> logits (N,).

    objective: that it was trained by.
    scale, offsets: log p / q, of real over generated images, is scale * logit + offset; there is
        an offset for each class, or one.
    held_out: whether the scale comes from real images that it had not seen.
    quantiles: of log p / q over a burn-in of generated images, rising, the last its maximum.
    """

    path: str
    objective: str
    scale: Annotated[float, Field(gt=0)]
    offsets: Annotated[list[float], Field(min_length=1)]
    held_out: bool
    quantiles: Annotated[list[float], Field(min_length=2, max_length=1001)]


class Source(_Part):
    """Where the generator comes from; of a network that gantrain did not train little is known.

    checkpoint_sha256: of the checkpoint file, or of the weights alone.
    """

    checkpoint_sha256: Sha256
    images_seen: Count | None
    ema: bool | None
    dataset_sha256: Sha256 | None
    dataset_path: str | None
    config: dict[str, Any]


class GateResult(_Part):
    """One gate of the parity check: measured value against its limit.

    num_images: that it looked at; bundles of older versions do not say.
    low, high: a 95 % interval of the value, where there is one.
    """

    artifact: str
    gate: str
    value: float
    limit: str
    passed: bool
    detail: str = ""
    num_images: Count | None = None
    low: float | None = None
    high: float | None = None


def gate_result(
    artifact: str,
    gate: str,
    value: float,
    limit: str,
    passed: bool,
    detail: str = "",
    *,
    num_images: int,
    interval: Interval | None = None,
) -> GateResult:
    """A gate's result; JSON has neither infinity nor NaN, and 999 stands for both."""
    low, high = interval or (None, None)
    return GateResult(
        artifact=artifact,
        gate=gate,
        value=float(value) if math.isfinite(value) else 999.0,
        limit=limit,
        passed=bool(passed),
        detail=detail,
        num_images=num_images,
        low=low,
        high=high,
    )


class Manifest(_Part):
    """All that manifest.json holds."""

    format_version: int
    model: Model
    graphs: list[Graph]
    engines: list[Engine]
    golden: Golden
    witness: WitnessFiles | None
    discriminator: Discriminator | None = None
    source: Source
    tools: dict[str, str]
    parity: list[GateResult]
    verified: bool
    files: dict[str, FileEntry]


class Bundle:
    """An opened bundle whose every byte has been checked against its manifest.

    Attributes:
        path: where it lies. manifest: what it holds. signature: its manifest.sig, if it is signed.
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
        if not path.exists():
            raise BundleError(f"{path}: no such bundle; make one with: gan export RUN -o {path}")
        self._zip = None if path.is_dir() else _open_zip(path)
        try:
            found = self._list()
            self._manifest_bytes = self._read_manifest(found)
            self.signature = self._read_signature(found, check)
            self.manifest = self._parse_manifest(self._manifest_bytes)
            self._check_files(found)
        except BundleError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise BundleError(f"{path}: cannot be read ({error})") from None

    def read(self, name: str) -> bytes:
        """The content of a declared file, checked against the manifest."""
        declared = self.manifest.files[name]
        data = self._read(name, declared.size)
        if sha256_bytes(data) != declared.sha256:
            raise self._damaged(name, f"sha256 {sha256_bytes(data)}", declared.sha256)
        return data

    def read_graph(self, precision: str) -> bytes:
        """The ONNX file of a precision; see `read_onnx`."""
        return self.read_onnx(
            next(g.path for g in self.manifest.graphs if g.precision == precision)
        )

    def read_onnx(self, name: str) -> bytes:
        """An ONNX file, refused if it would make a runtime read other files."""
        from ganinfer.onnx_wire import uses_external_data

        data = self.read(name)
        try:
            external = uses_external_data(data)
        except ValueError as error:
            raise BundleError(f"{self.path}: {name}: not an ONNX file ({error})") from None
        if external:
            raise BundleError(
                f"{self.path}: {name}: keeps weights outside the file; a bundle's graph holds"
                " its own. Export it again"
            )
        return data

    def tree(self, sign: Sign | None = None) -> dict[str, bytes]:
        """The content of every file, in the order of writing; signed anew, if told how."""
        signature = self.signature if sign is None else sign(self._manifest_bytes)
        own = _own_files(self._manifest_bytes, signature)
        return own | {name: self.read(name) for name in sorted(self.manifest.files)}

    def close(self) -> None:
        """Close the file of a single-file bundle."""
        if self._zip is not None:
            self._zip.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _list(self) -> dict[str, int]:
        """Name -> size of every file; links, odd names and special files are refused."""
        found = _list_folder(self.path) if self._zip is None else _list_zip(self._zip, self.path)
        for name in found:
            if not _SAFE_PATH.fullmatch(name):
                raise BundleError(
                    f"{self.path}: file name {name!r}; expected a relative, plain path."
                    " Do not open this bundle; get it anew from whoever made it"
                )
        return found

    def _read(self, name: str, size: int) -> bytes:
        if self._zip is None:
            with (self.path / name).open("rb") as file:
                return file.read(size + 1)
        try:
            with self._zip.open(name) as member:
                return member.read(size + 1)
        except (zipfile.BadZipFile, ValueError, RuntimeError, EOFError) as error:
            raise BundleError(f"{self.path}: {name}: {error}; copy the bundle again") from None

    def _read_manifest(self, found: dict[str, int]) -> bytes:
        for name in (MANIFEST, MANIFEST_DIGEST):
            if name not in found:
                raise BundleError(
                    f"{self.path}: no {name} in it; this is not a bundle, or half of one"
                )
        if found[MANIFEST] > _MAX_MANIFEST_BYTES:
            raise self._damaged(MANIFEST, f"{found[MANIFEST]} bytes", f"<= {_MAX_MANIFEST_BYTES}")
        return self._read(MANIFEST, found[MANIFEST])

    def _read_signature(self, found: dict[str, int], check: Check | None) -> bytes | None:
        if SIGNATURE not in found:
            if check is None:
                return None
            raise BundleError(
                f"{self.path}: no {SIGNATURE} in it: it is not signed, and public_key asks for a"
                " signature. Get the signed one, or sign it with: gan sign"
            )
        line = self._read(SIGNATURE, SIGNATURE_BYTES)
        if not well_formed(line):
            raise self._damaged(SIGNATURE, "something else", "a signature: one line of base64")
        if check is not None and not check(self._manifest_bytes, line):
            raise BundleError(
                f"{self.path}: {SIGNATURE} does not fit {MANIFEST} and the given public key: the"
                " manifest was changed, or another key has signed it. Do not use this bundle; get"
                " it anew from whoever signed it"
            )
        return line

    def _parse_manifest(self, data: bytes) -> Manifest:
        if self._read(MANIFEST_DIGEST, 1024) != _digest_line(data):
            raise self._damaged(
                MANIFEST, f"sha256 {sha256_bytes(data)}", f"that of {MANIFEST_DIGEST}"
            )
        self.sha256 = sha256_bytes(data)
        try:
            version = json.loads(data)["format_version"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise BundleError(f"{self.path}: {MANIFEST}: not a manifest; export it again") from None
        if version != FORMAT_VERSION:
            raise BundleError(
                f"{self.path}: {MANIFEST}: format_version {version}, this ganinfer reads"
                f" {FORMAT_VERSION}; upgrade ganpipe"
            )
        try:
            return Manifest.model_validate_json(data)
        except ValidationError as error:
            raise BundleError(explain(error, where=f"{self.path}: {MANIFEST}")) from None

    def _check_files(self, found: dict[str, int]) -> None:
        declared = self.manifest.files
        named = [self.manifest.golden.path]
        named += [graph.path for graph in self.manifest.graphs]
        for engine in self.manifest.engines:
            named += [engine.path, engine.report]
        if self.manifest.witness is not None:
            named += [self.manifest.witness.moments, self.manifest.witness.extractor]
        if self.manifest.discriminator is not None:
            named.append(self.manifest.discriminator.path)
        if extra := sorted(found.keys() - declared.keys() - {MANIFEST, MANIFEST_DIGEST, SIGNATURE}):
            raise BundleError(
                f"{self.path}: {extra[0]} is not in the manifest ({len(extra)} such);"
                " remove it, or get the bundle anew"
            )
        if missing := sorted((declared.keys() | set(named)) - (found.keys() & declared.keys())):
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
        sign: also write manifest.sig; see `ganinfer.signature.open_private_key`.

    Raises:
        BundleError: something that is no bundle is at `path`.
        OSError: the disk is full or not writable; nothing is left behind.
    """
    entries = {
        name: FileEntry(sha256=sha256_bytes(data), size=len(data))
        for name, data in sorted(files.items())
    }
    complete = manifest.model_copy(update={"files": entries})
    text = json.dumps(complete.model_dump(), indent=1, sort_keys=True, allow_nan=False) + "\n"
    own = _own_files(text.encode(), sign and sign(text.encode()))
    write_tree(path, own | dict(sorted(files.items())), single_file=single_file)


def sign_bundle(path: Path, sign: Sign) -> None:
    """Sign a bundle where it lies; an older signature is replaced, every other byte stays.

    Args:
        path: the bundle, in either form.
        sign: see `ganinfer.signature.open_private_key`.

    Raises:
        BundleError: it is damaged, or there is none.
        OSError: the disk is full or not writable; the bundle is as it was.
    """
    with Bundle(path) as bundle:
        tree = bundle.tree(sign)
    write_tree(path, tree, single_file=not path.is_dir())


def write_tree(path: Path, tree: Mapping[str, bytes], *, single_file: bool) -> None:
    """Write all files of a bundle, as `write_bundle` does; see `Bundle.tree`."""
    path = path.resolve()  # a link to a bundle stays a link
    check_destination(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.{'[0-9a-f]' * 32}"):
        if time.time() - left.stat().st_mtime > _ABANDONED_S:
            _remove(left)  # by a writer that was killed
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        (_write_zip if single_file else _write_folder)(temporary, tree)
        _move_into_place(temporary, path)
    finally:
        _remove(temporary)


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
            return (path / MANIFEST_DIGEST).read_bytes() == _digest_line(manifest)
        _open_zip(path).close()
    except (OSError, BundleError):
        return False
    return True


def _own_files(manifest: bytes, signature: bytes | None) -> dict[str, bytes]:
    """The files that a manifest does not declare: itself, its digest and its signature."""
    own = {MANIFEST: manifest, MANIFEST_DIGEST: _digest_line(manifest)}
    return own if signature is None else {**own, SIGNATURE: signature}


def _digest_line(manifest: bytes) -> bytes:
    return f"{sha256_bytes(manifest)}  {MANIFEST}\n".encode()


def _list_folder(path: Path) -> dict[str, int]:
    found = {}
    for folder, folders, names in os.walk(path):
        for name in (*folders, *names):
            entry = Path(folder, name)
            status = entry.lstat()
            relative = entry.relative_to(path).as_posix()
            if stat.S_ISREG(status.st_mode):
                found[relative] = status.st_size
            elif not stat.S_ISDIR(status.st_mode):
                raise BundleError(
                    f"{path}: {relative} is a link or a special file; a bundle has none"
                )
    return found


def _open_zip(path: Path) -> zipfile.ZipFile:
    """Open a single-file bundle once its comment, the sha256 of all before it, is right."""
    advice = "the file was changed or damaged on the way, or is no bundle. Copy it again"
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _COMMENT_BYTES))
            comment = file.read()
            expected = _closing_comment(file, size - _COMMENT_BYTES)
        if comment != expected:
            raise BundleError(f"{path}: its closing sha256 does not match; {advice}")
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise BundleError(f"{path}: {error}; {advice}") from None
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error})") from None


def _list_zip(archive: zipfile.ZipFile, path: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for member in archive.infolist():
        kind = stat.S_IFMT(member.external_attr >> 16)
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise BundleError(
                f"{path}: {member.filename} is compressed or encrypted; it must be stored"
            )
        if kind not in (0, stat.S_IFREG) or member.filename in found:
            raise BundleError(f"{path}: {member.filename} is a link, special or there twice")
        found[member.filename] = member.file_size
    return found


def _write_folder(folder: Path, tree: Mapping[str, bytes]) -> None:
    folder.mkdir()
    for name, data in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / name, data)


def _write_zip(path: Path, tree: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "x", zipfile.ZIP_STORED) as archive:
        for name, data in tree.items():
            # A fixed date: the same bundle is the same file.
            member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            member.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(member, data)
        archive.comment = b"." * _COMMENT_BYTES
    with path.open("r+b") as file:
        length = file.seek(-_COMMENT_BYTES, os.SEEK_END)
        comment = _closing_comment(file, length)
        file.seek(length)
        file.write(comment)
        file.flush()
        os.fsync(file.fileno())


def _closing_comment(file: BinaryIO, length: int) -> bytes:
    """The sha256 of the file's first `length` bytes, as the comment that ends a bundle."""
    digest = hashlib.sha256()
    file.seek(0)
    while length > 0 and (chunk := file.read(min(length, 1 << 20))):
        digest.update(chunk)
        length -= len(chunk)
    return _DIGEST_PREFIX + digest.hexdigest().encode()


def _move_into_place(new: Path, path: Path) -> None:
    if not path.exists() or not (new.is_dir() or path.is_dir()):
        new.replace(path)
        return
    # A folder cannot be renamed over another one. Linux can swap the two in one step.
    try:
        at_fdcwd, exchange = -100, 2
        libc = ctypes.CDLL(None, use_errno=True)
        failed = libc.renameat2(at_fdcwd, bytes(new), at_fdcwd, bytes(path), exchange)
    except (OSError, AttributeError, TypeError):  # another system, or an old kernel
        failed = True
    if failed:
        old = path.with_name(f".{path.name}.old-{uuid.uuid4().hex}")
        path.rename(old)
        new.rename(path)
        _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
