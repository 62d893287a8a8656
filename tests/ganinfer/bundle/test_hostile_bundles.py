"""Two thousand spoiled bundles: each is refused, by name, quickly and without eating the memory.

A bundle is opened and every file read, as `Sampler` and `gan verify` do before anything runs.
"""

import os
import random
import resource
import shutil
import stat
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import rewrite_manifest

from ganinfer.bundle.archive import Bundle, write_bundle
from ganinfer.bundle.golden import read_golden
from ganinfer.bundle.signature import SIGNATURE
from ganinfer.bundle.witness import Witness
from ganinfer.errors import BundleError
from ganinfer.files import sha256_bytes

NUM_GROUPS, PER_GROUP = 20, 100
MAX_SECONDS, MAX_MEBIBYTES = 2.0, 500


def read_everything(path: Path) -> None:
    with Bundle(path) as bundle:
        for name in bundle.manifest.files:
            bundle.read(name)
        for graph in bundle.manifest.graphs:
            bundle.read_graph(graph.precision)
        read_golden(bundle)
        Witness.load(bundle)
        if (files := bundle.manifest.witness) is not None:
            bundle.read_onnx(files.extractor)


def files_of(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def flip(folder: Path, other: Path, rng: random.Random) -> None:
    file = rng.choice(files_of(folder))
    data = bytearray(file.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(data)


def cut(folder: Path, other: Path, rng: random.Random) -> None:
    file = rng.choice(files_of(folder))
    data = file.read_bytes()
    file.write_bytes(data[: rng.randrange(len(data))])


def drop(folder: Path, other: Path, rng: random.Random) -> None:
    rng.choice(files_of(folder)).unlink()


def add(folder: Path, other: Path, rng: random.Random) -> None:
    name = rng.choice(["x.onnx", "onnx/more.onnx", ".hidden", "golden/images.pkl", "engines/a"])
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(rng.randbytes(rng.randrange(1, 99)))


def swap(folder: Path, other: Path, rng: random.Random) -> None:
    """A file of another bundle in this one's place; of the manifest's own pair only one."""
    names = [file.relative_to(folder) for file in files_of(folder)]
    different = [n for n in names if (folder / n).read_bytes() != (other / n).read_bytes()]
    name = rng.choice(different)
    shutil.copyfile(other / name, folder / name)


def exchange(folder: Path, other: Path, rng: random.Random) -> None:
    one, two = rng.sample(files_of(folder), 2)
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def escape(folder: Path, other: Path, rng: random.Random) -> None:
    path = rng.choice(["/etc/passwd", "../../../etc/passwd", "onnx/../../x", "C:\\x", "a\0b", ""])

    def change(manifest: dict) -> None:
        entry = rng.choice([*manifest["graphs"], manifest["golden"]])
        if rng.random() < 0.5:
            manifest["files"][path] = manifest["files"].pop(entry["path"])
        entry["path"] = path

    rewrite_manifest(folder, change)


def link(folder: Path, other: Path, rng: random.Random) -> None:
    file = rng.choice(files_of(folder))
    target = rng.choice(["/etc/passwd", "/dev/zero", str(other / file.relative_to(folder)), "/"])
    file.unlink()
    file.symlink_to(target)


def pipe(folder: Path, other: Path, rng: random.Random) -> None:
    file = rng.choice(files_of(folder))
    file.unlink()
    os.mkfifo(file)


def giant(folder: Path, other: Path, rng: random.Random) -> None:
    """Sizes and shapes beyond all bounds, declared with a right digest."""
    huge = rng.choice([2**31, 2**40, 2**63 - 1])

    def change(manifest: dict) -> None:
        what = rng.randrange(4)
        if what == 0:
            rng.choice(list(manifest["files"].values()))["size"] = huge
        elif what == 1:
            manifest["model"]["resolution"] = rng.choice([huge, [16, huge]])
        elif what == 2:
            manifest["model"]["z_dim"] = huge
        else:
            manifest["golden"]["seeds"] = list(range(100_000))

    rewrite_manifest(folder, change)


def witness(folder: Path, other: Path, rng: random.Random) -> None:
    """Moments of other shapes, or no numbers; properly declared."""
    file = folder / "witness" / "moments.f64"
    what = rng.randrange(3)
    if what == 0:
        file.write_bytes(np.full(file.stat().st_size // 8, np.nan).tobytes())
    elif what == 1:
        file.write_bytes(rng.randbytes(rng.randrange(500)))
    data = file.read_bytes()

    def change(manifest: dict) -> None:
        manifest["files"]["witness/moments.f64"] = {"sha256": sha256_bytes(data), "size": len(data)}
        if what == 2:
            field = rng.choice(["num_groups", "num_features"])
            manifest["witness"][field] = rng.choice([0, 7, 4000, 2**40])

    rewrite_manifest(folder, change)


def signature(folder: Path, other: Path, rng: random.Random) -> None:
    """What no signature looks like, in the one undeclared place that a bundle has."""
    size = rng.choice([0, 1, 64, 88, 90, 1 << 16])
    (folder / SIGNATURE).write_bytes(rng.randbytes(size))


def archive_of(folder: Path, target: Path, rng: random.Random) -> None:
    """A zip of the folder, spoiled as only zips can be."""
    what = rng.randrange(5)
    if what == 0:  # flipped or cut anywhere, in its tables too
        data = bytearray((folder.parent / "good.gan").read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        target.write_bytes(data if rng.random() < 0.7 else data[: rng.randrange(len(data))])
        return
    with zipfile.ZipFile(target, "w") as archive:
        for file in files_of(folder):
            archive.write(file, file.relative_to(folder))
        if what == 1:
            with archive.open(zipfile.ZipInfo("bomb"), "w", force_zip64=True) as member:
                member.write(b"\0" * 10)
            info = zipfile.ZipInfo("onnx/bomb.onnx")
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, b"\0" * (20 << 20))
        elif what == 2:
            archive.writestr(rng.choice(["/etc/x", "../x", "a/../../x"]), b"x")
        elif what == 3:
            info = zipfile.ZipInfo("onnx/link.onnx")
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, "/etc/passwd")


MUTATIONS = [flip, cut, drop, add, swap, exchange, escape, link, pipe, giant, witness, signature]


@pytest.fixture(scope="module")
def other(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another good bundle, all of whose files differ but the extractor."""
    path = tmp_path_factory.mktemp("other") / "other.gan"
    with Bundle(bundle) as opened:
        files = {name: opened.read(name) for name in opened.manifest.files}
        for name in files:
            if name != "witness/extractor.onnx":
                files[name] += b"\0"
        write_bundle(path, opened.manifest, files)
    return path


@pytest.mark.parametrize("group", range(NUM_GROUPS))
def test_a_spoiled_bundle_is_refused(group: int, bundle: Path, other: Path, tmp_path: Path) -> None:
    with Bundle(bundle) as opened:
        files = {name: opened.read(name) for name in opened.manifest.files}
        write_bundle(tmp_path / "good.gan", opened.manifest, files, single_file=True)
    folder, archive = tmp_path / "x.gan", tmp_path / "y.gan"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(PER_GROUP):
        rng = random.Random(1000 * group + number)
        shutil.copytree(bundle, folder)
        if number % 4 == 3:
            archive_of(folder, archive, rng)
            spoiled, name = archive, "archive"
        else:
            mutate = MUTATIONS[number % len(MUTATIONS)]
            mutate(folder, other, rng)
            spoiled, name = folder, mutate.__name__
        start = time.perf_counter()
        with pytest.raises(BundleError) as refusal:
            read_everything(spoiled)
            pytest.fail(f"{name}, {1000 * group + number}: opened")
        assert time.perf_counter() - start < MAX_SECONDS, (name, number)
        assert str(refusal.value).startswith(str(spoiled)), (name, number)
        shutil.rmtree(folder)
        archive.unlink(missing_ok=True)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) / 1024 < MAX_MEBIBYTES
