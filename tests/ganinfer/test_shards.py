import io
import json
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganinfer import Sampler
from ganinfer.drawing.latents import draw_labels
from ganinfer.errors import ConfigError, DataError, GanError, RequestError
from ganinfer.files import only_writer, sha256_file
from ganinfer.lookup import module_names
from ganinfer.shards import INDEX, write_shards

FORMATS = module_names("ganinfer.formats")


@pytest.fixture(scope="module")
def sampler(bundle: Path):
    with Sampler(bundle) as opened:
        yield opened


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_tar_shard_is_a_webdataset(sampler: Sampler, tmp_path: Path) -> None:
    write_shards(sampler, 300, tmp_path, seed=7, shard_size=200, truncation=0.5)
    images, labels = sampler.sample(300, seed=7, truncation=0.5), draw_labels(range(7, 307), 3)
    with tarfile.open(tmp_path / "shard-000001.tar") as archive:
        members = archive.getmembers()
        read = [archive.extractfile(member).read() for member in members]
    assert [member.name for member in members[:3]] == [
        "00000000000000000207.png",
        "00000000000000000207.cls",
        "00000000000000000208.png",
    ]
    assert {(m.mtime, m.uid, m.gid, m.mode, m.uname) for m in members} == {(0, 0, 0, 0o644, "")}
    pictures = [np.asarray(Image.open(io.BytesIO(data))) for data in read[::2]]
    assert np.array_equal(np.stack(pictures), images[200:])
    assert [int(data) for data in read[1::2]] == labels[200:].tolist()


def test_an_npz_shard_holds_arrays(sampler: Sampler, tmp_path: Path) -> None:
    write_shards(sampler, 150, tmp_path, seed=2**64 - 150, format="npz", labels=["2", 0])
    with np.load(tmp_path / "shard-000000.npz") as arrays:
        assert sorted(arrays) == ["images", "labels", "seeds"]
        assert arrays["seeds"].tolist() == list(range(2**64 - 150, 2**64))
        assert arrays["labels"].tolist() == [2, 0] * 75
        expected = sampler.sample(150, seed=2**64 - 150, labels=[2, 0] * 75)
        assert np.array_equal(arrays["images"], expected)


def test_the_index_says_what_is_there(sampler: Sampler, tmp_path: Path) -> None:
    written = write_shards(sampler, 250, tmp_path, shard_size=100)
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["request"]["bundle_sha256"] == sampler.sha256
    assert [shard["count"] for shard in index["shards"]] == [100, 100, 50]
    for shard in index["shards"]:
        path = tmp_path / shard["name"]
        assert (shard["sha256"], shard["size"]) == (sha256_file(path), path.stat().st_size)
    assert [shard.model_dump() for shard in written.shards] == index["shards"]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("flush", [4, 5], ids=["in a shard", "in the index"])
def test_killed_and_called_again_gives_the_same_bytes(
    sampler: Sampler, bundle: Path, tmp_path: Path, name: str, flush: int
) -> None:
    """Flushes to the disk: the index, the first shard, the index, the second shard, the index."""
    code = f"""
import itertools, os, signal
from pathlib import Path
from ganinfer import Sampler
from ganinfer.shards import write_shards
calls = itertools.count(1)
os.fsync = lambda file: next(calls) == {flush} and os.kill(os.getpid(), signal.SIGKILL)
with Sampler({str(bundle)!r}) as sampler:
    write_shards(sampler, 500, Path("killed"), shard_size=150, format={name!r})
"""
    process = subprocess.run([sys.executable, "-c", code], cwd=tmp_path)
    assert process.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "killed").glob(".*"))) == 1
    again = write_shards(sampler, 500, tmp_path / "killed", shard_size=150, format=name)
    assert again.num_kept == 1
    write_shards(sampler, 500, tmp_path / "whole", shard_size=150, format=name, workers=1)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_damaged_and_missing_shards_are_drawn_again(sampler: Sampler, tmp_path: Path) -> None:
    write_shards(sampler, 300, tmp_path, shard_size=100)
    before = contents(tmp_path)
    data = bytearray(before["shard-000000.tar"])
    data[700] ^= 1
    (tmp_path / "shard-000000.tar").write_bytes(data)
    (tmp_path / "shard-000002.tar").unlink()
    untouched = (tmp_path / "shard-000001.tar").stat().st_mtime_ns
    written = write_shards(sampler, 300, tmp_path, shard_size=100)
    assert (written.num_kept, len(written.shards)) == (1, 3)
    assert written.damaged == ["shard-000000.tar", "shard-000002.tar"]
    assert contents(tmp_path) == before
    assert (tmp_path / "shard-000001.tar").stat().st_mtime_ns == untouched


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n": 400}, "n 100, now 400"),
        ({"seed": 1}, "seed 0, now 1"),
        ({"labels": 1}, r"labels None, now \[1\]"),
        ({"truncation": 0.7}, "truncation None, now 0.7"),
        ({"format": "npz", "shard_size": 50}, "format 'tar', now 'npz'; shard_size 10000, now 50"),
    ],
)
def test_another_request_is_refused_by_what_differs(
    sampler: Sampler, tmp_path: Path, change: dict, words: str
) -> None:
    write_shards(sampler, 100, tmp_path)
    before = contents(tmp_path)
    with pytest.raises(RequestError, match=f"another request: {words};"):
        write_shards(sampler, **{"n": 100, "folder": tmp_path, **change})
    assert contents(tmp_path) == before


def test_another_precision_is_another_request(bundle: Path, sampler, tmp_path: Path) -> None:
    write_shards(sampler, 10, tmp_path)
    with (
        Sampler(bundle, precision="fp16") as other,
        pytest.raises(RequestError, match="precision 'fp32', now 'fp16'"),
    ):
        write_shards(other, 10, tmp_path)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"n": -1}, RequestError, "n: found -1"),
        ({"seed": 2**64 - 5}, RequestError, "seed: found"),
        ({"labels": [0, "dog"]}, RequestError, "label 'dog'"),
        ({"labels": []}, RequestError, "labels: found none"),
        ({"truncation": -1.0}, RequestError, "truncation: found -1.0"),
        ({"shard_size": 0}, RequestError, "shard_size: found 0"),
        ({"workers": 0}, RequestError, "workers: found 0"),
        ({"format": "zip"}, ConfigError, "there is no 'zip'; it takes npz, tar"),
    ],
)
def test_a_mistake_leaves_nothing(sampler, tmp_path: Path, change, error, words) -> None:
    with pytest.raises(error, match=words):
        write_shards(sampler, **{"n": 10, "folder": tmp_path / "shards", **change})
    assert not (tmp_path / "shards").exists()


@pytest.mark.parametrize("text", ["", "{}", '{"format_version": 2}'])
def test_an_index_of_something_else_is_refused(sampler, tmp_path: Path, text: str) -> None:
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(DataError, match=r"shards.json.*delete it to draw all shards again"):
        write_shards(sampler, 10, tmp_path)


def test_files_that_the_request_does_not_plan_are_not_counted(sampler, tmp_path: Path) -> None:
    write_shards(sampler, 10, tmp_path / "shards")
    expected = contents(tmp_path / "shards")
    index = json.loads(expected[INDEX])
    index["shards"].append({**index["shards"][0], "name": "../shards/shard-000000.tar"})
    (tmp_path / "shards" / INDEX).write_text(json.dumps(index))
    assert write_shards(sampler, 10, tmp_path / "shards").num_kept == 1
    assert contents(tmp_path / "shards") == expected


def test_a_folder_has_one_writer(sampler: Sampler, tmp_path: Path) -> None:
    with only_writer(tmp_path), pytest.raises(GanError, match="another process is writing"):
        write_shards(sampler, 10, tmp_path)


def test_no_images_are_no_shards(sampler: Sampler, tmp_path: Path) -> None:
    assert write_shards(sampler, 0, tmp_path).shards == []


def test_a_failure_leaves_whole_shards_only(sampler: Sampler, tmp_path: Path) -> None:
    def fail(what: str, done: int, total: int) -> None:
        if done > 250:
            raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        write_shards(sampler, 400, tmp_path, shard_size=100, progress=fail)
    assert sorted(contents(tmp_path)) == ["lock", "shard-000000.tar", "shard-000001.tar", INDEX]
