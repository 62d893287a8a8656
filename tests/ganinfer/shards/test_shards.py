import io
import json
import signal
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from ganinfer import Sampler
from ganinfer.drawing.latents import draw_labels
from ganinfer.errors import ConfigError, DataError, Ending, RequestError
from ganinfer.files import sha256_file
from ganinfer.lookup import module_names
from ganinfer.shards import INDEX, REQUEST, Index, plan, write_missing, write_shards

FORMATS = module_names("ganinfer.formats")


@pytest.fixture(scope="module")
def sampler(bundle: Path):
    with Sampler(bundle, backend="onnxruntime", precision="fp32") as opened:
        yield opened


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files, those of records and hidden ones too."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


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


@pytest.mark.parametrize("encoding", ["png", "webp", "jpeg:80"])
def test_a_parquet_shard_is_what_the_hub_shows(sampler, tmp_path: Path, encoding: str) -> None:
    write_shards(sampler, 300, tmp_path, format="parquet", encoding=encoding, truncation=0.5)
    table = pyarrow.parquet.read_table(tmp_path / "shard-000000.parquet")
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == table.column_names == ["image", "label", "seed", "truncation"]
    assert features["image"] == {"_type": "Image"}
    assert features["label"] == {"names": sampler.classes, "_type": "ClassLabel"}
    rows = table.to_pydict()
    assert rows["seed"] == list(range(300))
    assert rows["label"] == draw_labels(range(300), 3).tolist()
    assert set(rows["truncation"]) == {0.5}
    pictures = [Image.open(io.BytesIO(row["bytes"])) for row in rows["image"]]
    assert {p.format for p in pictures} == {encoding.partition(":")[0].upper()}
    assert Path(rows["image"][7]["path"]).suffix == {"jpeg:80": ".jpg"}.get(
        encoding, f".{encoding}"
    )
    found = np.stack([np.asarray(picture) for picture in pictures])
    expected = sampler.sample(300, truncation=0.5)
    if encoding == "jpeg:80":
        assert np.abs(found.astype(float) - expected).mean() < 40
    else:
        assert np.array_equal(found, expected)


def test_a_large_parquet_shard_has_groups_of_rows(sampler, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("ganinfer.shards.drawing._MOST", 128)
    monkeypatch.setattr("ganinfer.formats.parquet._ROW_GROUP_BYTES", 1)
    write_shards(sampler, 300, tmp_path, format="parquet")
    file = pyarrow.parquet.ParquetFile(tmp_path / "shard-000000.parquet")
    groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert groups == [128, 128, 44]


def test_a_tar_shard_holds_other_encodings(sampler: Sampler, tmp_path: Path) -> None:
    write_shards(sampler, 3, tmp_path, encoding="webp")
    with tarfile.open(tmp_path / "shard-000000.tar") as archive:
        names = archive.getnames()
        picture = Image.open(archive.extractfile(names[2]))
        assert names[2] == "00000000000000000001.webp"
        assert np.array_equal(np.asarray(picture), sampler.sample(1, seed=1)[0])


def test_a_data_card_is_written_once(sampler: Sampler, tmp_path: Path) -> None:
    write_shards(sampler, 30, tmp_path, shard_size=10, labels=[2, 0], truncation=0.5)
    card = (tmp_path / "README.md").read_text()
    assert card.startswith('---\npretty_name: "30 images of a GAN"\n')
    assert "data_files: shard-*.tar" in card
    for told in (
        f"`{sampler.sha256}`",
        "| seeds | 0 to 29 |",
        "| labels | 2, 0 |",
        "| truncation | 0.5 |",
    ):
        assert told in card
    (tmp_path / "README.md").write_text("mine")
    write_shards(sampler, 30, tmp_path, shard_size=10, labels=[2, 0], truncation=0.5)
    assert (tmp_path / "README.md").read_text() == "mine"


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
@pytest.mark.parametrize("flush", [4, 5], ids=["in a shard", "in its record"])
def test_killed_and_called_again_gives_the_same_bytes(
    sampler: Sampler, bundle: Path, tmp_path: Path, name: str, flush: int
) -> None:
    """Flushes to the disk: the request, the first shard, its record, the second, its record."""
    code = f"""
import itertools, os, signal
from pathlib import Path
from ganinfer import Sampler
from ganinfer.shards import write_shards
calls = itertools.count(1)
os.fsync = lambda file: next(calls) == {flush} and os.kill(os.getpid(), signal.SIGKILL)
with Sampler({str(bundle)!r}, backend="onnxruntime", precision="fp32") as sampler:
    write_shards(sampler, 500, Path("killed"), shard_size=150, format={name!r})
"""
    process = subprocess.run([sys.executable, "-c", code], cwd=tmp_path)
    assert process.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "killed").rglob(".*"))) == 1
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
    assert plan(sampler, 300, shard_size=100).missing(tmp_path) == [2]  # by their sizes
    written = write_shards(sampler, 300, tmp_path, shard_size=100, check="sha256")
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
        (
            {"format": "npz", "shard_size": 50},
            "format 'tar', now 'npz'; encoding 'png', now None; shard_size 10000, now 50",
        ),
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


def test_shards_may_be_computed_by_different_ones_unless_that_is_refused(
    bundle: Path, sampler: Sampler, tmp_path: Path
) -> None:
    planned = plan(sampler, 30, shard_size=10)
    written = write_missing(planned, [0, 2], tmp_path)
    assert [shard.seed for shard in written.shards] == [0, 20]
    with Sampler(bundle, backend="onnxruntime", precision="fp16") as other:
        write_shards(other, 30, tmp_path, shard_size=10)
        index = Index.model_validate_json((tmp_path / INDEX).read_bytes())
        assert [(m.precision, n) for m, n in index.made_by] == [("fp32", 2), ("fp16", 1)]
        with pytest.raises(DataError, match="2 by onnxruntime fp32 on cpu.*; 1 by .* fp16"):
            write_shards(other, 30, tmp_path, shard_size=10, strict=True)


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
        ({"check": "md5"}, RequestError, "check: found 'md5'; expected size or sha256"),
        ({"format": "zip"}, ConfigError, "there is no 'zip'; it takes npz, parquet, tar"),
        ({"encoding": "gif"}, RequestError, "encoding 'gif': expected png, webp, jpeg, or"),
        ({"encoding": "png:9"}, RequestError, "encoding 'png:9': expected png"),
        ({"encoding": "jpeg:0"}, RequestError, "a quality from 1 to 100"),
        ({"encoding": "png", "format": "npz"}, RequestError, "format npz: holds no files of"),
    ],
)
def test_a_mistake_leaves_nothing(sampler, tmp_path: Path, change, error, words) -> None:
    with pytest.raises(error, match=words):
        write_shards(sampler, **{"n": 10, "folder": tmp_path / "shards", **change})
    assert not (tmp_path / "shards").exists()


@pytest.mark.parametrize("name", [INDEX, REQUEST])
@pytest.mark.parametrize("text", ["", "{}", '{"format_version": 3}'])
def test_a_file_of_something_else_is_refused(sampler, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=rf"{name}.*delete it to draw all shards again"):
        write_shards(sampler, 10, tmp_path)


def test_a_record_of_something_else_does_not_count(sampler: Sampler, tmp_path: Path) -> None:
    write_shards(sampler, 30, tmp_path, shard_size=10)
    before = contents(tmp_path)
    records = sorted((tmp_path / "records").iterdir())
    records[0].write_text("{}")
    records[1].write_text(records[2].read_text().replace("shard-000002", "../shard-000002"))
    (tmp_path / REQUEST).write_bytes(plan(sampler, 30, seed=1, shard_size=10).request.json_bytes)
    written = write_shards(sampler, 30, tmp_path, seed=1, shard_size=10)
    assert written.damaged == [f"shard-00000{n}.tar" for n in range(3)]
    for name in (REQUEST, INDEX):
        with pytest.raises(RequestError, match="seed 1, now 0"):
            write_shards(sampler, 30, tmp_path, shard_size=10)
        (tmp_path / name).unlink()
    assert write_shards(sampler, 30, tmp_path, shard_size=10).num_kept == 0
    assert contents(tmp_path) == before


def test_a_folder_of_format_1_goes_on(sampler: Sampler, tmp_path: Path) -> None:
    """Until then shards.json was the only record, and was written after each shard."""
    write_shards(sampler, 30, tmp_path, shard_size=10)
    expected = {name: data for name, data in contents(tmp_path).items() if name.endswith(".tar")}
    index = json.loads((tmp_path / INDEX).read_text())
    earlier = {**index["request"], "backend": "openvino", "device": "cpu", "precision": "bf16"}
    del earlier["format_version"], earlier["encoding"]
    shards = [{k: v for k, v in shard.items() if k != "seed"} for shard in index["shards"][:2]]
    stray = {**shards[0], "name": "../shards/shard-000000.tar"}
    text = {"format_version": 1, "request": earlier, "classes": sampler.classes}
    for file in (tmp_path / REQUEST, tmp_path / "shard-000002.tar", *tmp_path.glob("records/*")):
        file.unlink()
    (tmp_path / INDEX).write_text(json.dumps({**text, "shards": [*shards, stray]}))
    with pytest.raises(RequestError, match="seed 0, now 1"):
        write_shards(sampler, 30, tmp_path, seed=1, shard_size=10)
    written = write_shards(sampler, 30, tmp_path, shard_size=10)
    assert (written.num_kept, written.damaged) == (2, [])
    index = json.loads((tmp_path / INDEX).read_text())
    assert [(m["backend"], n) for m, n in index["made_by"]] == [("openvino", 2), ("onnxruntime", 1)]
    found = {name: data for name, data in contents(tmp_path).items() if name.endswith(".tar")}
    assert found == expected


def test_parts_that_are_killed_and_repeated_are_those_of_one_process(
    gan, bundle: Path, sampler: Sampler, tmp_path: Path
) -> None:
    here = ("--backend", "onnxruntime", "--precision", "fp32")
    command = ["sample", bundle, "-n", 60, "-o", "parts", "--shard-size", 10, *here]
    assert gan(*command, "--shards", "0/2", cwd=tmp_path).returncode == 0
    early = gan(*command, "--finish", cwd=tmp_path)
    assert early.returncode == Ending.MISSING
    assert "3 of 6 shards are not there: shard-000001.tar, shard-000003.tar" in early.stderr
    left = tmp_path / "parts" / ".shard-000001.tar.0123.part"  # of a process that was killed
    left.write_bytes(b"half")
    for part in ("1/2", "1/2"):
        assert gan(*command, "--shards", part, cwd=tmp_path).returncode == 0
    done = gan(*command, "--finish", "--strict", cwd=tmp_path)
    assert "6 shards by onnxruntime fp32 on cpu" in done.stdout.replace("\n", " ")
    write_shards(sampler, 60, tmp_path / "whole", shard_size=10)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


@pytest.mark.skipif(sys.platform == "win32", reason="has no limits of files' sizes")
def test_a_disk_that_fills_is_told_and_no_loss(bundle: Path, sampler, tmp_path: Path) -> None:
    """A limit of a file's size stands for the disk."""
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from ganexport.cli.gan import main
import sys
sys.argv = ["gan", "sample", {str(bundle)!r}, "-n", "30", "-o", "full", "--shard-size", "20",
    "--backend", "onnxruntime", "--precision", "fp32"]
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "full/shard-000000.tar: File too large; choose another place" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(contents(tmp_path / "full")) == [REQUEST]
    assert write_shards(sampler, 30, tmp_path / "full", shard_size=20).damaged == []
    write_shards(sampler, 30, tmp_path / "whole", shard_size=20)
    assert contents(tmp_path / "full") == contents(tmp_path / "whole")


def test_two_may_write_the_same_shard_at_once(sampler: Sampler, tmp_path: Path) -> None:
    planned = plan(sampler, 3000, shard_size=3000)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: planned.write(0, tmp_path), range(2))
    assert one == other
    assert planned.missing(tmp_path, check="sha256") == []
    assert sorted(contents(tmp_path)) == ["records/shard-000000.tar.json", "shard-000000.tar"]


def test_no_images_are_no_shards(sampler: Sampler, tmp_path: Path) -> None:
    assert write_shards(sampler, 0, tmp_path).shards == []


def test_a_failure_leaves_whole_shards_only(sampler: Sampler, tmp_path: Path) -> None:
    def fail(what: str, done: int, total: int) -> None:
        if what == "sampling" and done > 250:
            raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        write_shards(sampler, 400, tmp_path, shard_size=100, progress=fail)
    assert sorted(contents(tmp_path)) == [
        *(f"records/shard-00000{n}.tar.json" for n in (0, 1)),
        REQUEST,
        *(f"shard-00000{n}.tar" for n in (0, 1)),
    ]
