"""Filters: which seeds a shard keeps, and what is said of it."""

import itertools
import json
import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_shards import contents

from ganexport.pipeline import Exported
from ganinfer import Sampler
from ganinfer.drawing.latents import draw_labels
from ganinfer.errors import BackendUnavailable, ConfigError, RequestError
from ganinfer.files import sha256_file
from ganinfer.formats import Batch
from ganinfer.rejection import accepted
from ganinfer.shards import INDEX, Index, plan, write_missing, write_shards
from ganinfer.shards.keeping import kept_by

FLOATS, BYTES = ["N", 3, 16, 16], ["N", 16, 16, 3]


@pytest.fixture(scope="module")
def sampler(judged: Exported) -> Iterator[Sampler]:
    with Sampler(judged.path, backend="onnxruntime", precision="fp32") as opened:
        yield opened


def write_classifier(path: Path, *, bytes_in: bool = False, softmax: bool = False) -> Path:
    """How red, green or blue an image is on the whole: the classes of the test's dataset."""
    shape = BYTES if bytes_in else FLOATS
    kind = TensorProto.UINT8 if bytes_in else TensorProto.FLOAT
    scale = np.float32(15 / 127.5 if bytes_in else 15)
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "sides"], ["means"], keepdims=0),
        helper.make_node("Mul", ["means", "scale"], ["logits"]),
        helper.make_node("Softmax" if softmax else "Identity", ["logits"], ["scores"]),
    ]
    sides = np.array([1, 2] if bytes_in else [2, 3])
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("images", kind, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(sides, "sides"), numpy_helper.from_array(scale, "scale")],
    )
    opset = [helper.make_opsetid("", 18)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    )
    onnx.checker.check_model(str(path))
    return path


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("classifier") / "colours.onnx")


def kept_one_by_one(
    sampler: Sampler, asked: dict, labels: list[int] | None, number: int, size: int, tries: int
) -> tuple[list[int], list[int], int]:
    """Seeds, labels and how many were drawn, of a shard; as the docs have it."""
    keeps = kept_by(asked["keep"], sampler, asked.get("classifier")).filter.keeps
    block = range(1000 + number * size * tries, 1000 + (number + 1) * size * tries)
    if labels is None:
        classes = draw_labels(block, 3).tolist()
    else:
        classes = [labels[(number * size + i) % len(labels)] for i in range(len(block))]
    left, drawn, kept = Counter(classes[:size]), 0, []
    for seed, label in zip(block, classes, strict=True):
        if left[label] == 0:
            continue
        drawn += 1
        images = sampler.sample(seeds=[seed], labels=label)
        if keeps(Batch(np.array([seed], np.uint64), np.array([label]), images)).item():
            left[label] -= 1
            kept.append((seed, label))
    return [seed for seed, _ in kept], [label for _, label in kept], drawn


@pytest.mark.parametrize("labels", [None, [0, 1, 1, 2]])
@pytest.mark.parametrize("keep", ["rejection", "classifier>=0.9"])
def test_a_shard_keeps_the_first_seeds_of_each_class_that_pass(
    sampler: Sampler, classifier: Path, tmp_path: Path, keep: str, labels: list[int] | None
) -> None:
    asked = {"keep": keep, "classifier": classifier if "classifier" in keep else None}
    written = write_shards(
        sampler,
        75,
        tmp_path,
        seed=1000,
        labels=labels,
        shard_size=30,
        format="npz",
        tries=50,
        **asked,
    )
    index = Index.model_validate_json((tmp_path / INDEX).read_bytes())
    assert index.drawn == sum(shard.drawn for shard in written.shards) > 75
    shard = written.shards[1]
    seeds, classes, drawn = kept_one_by_one(sampler, asked, labels, 1, 30, 50)
    with np.load(tmp_path / shard.name) as arrays:
        assert arrays["seeds"].tolist() == seeds
        assert arrays["labels"].tolist() == classes
        assert np.array_equal(arrays["images"], sampler.sample(seeds=seeds, labels=classes))
    assert (shard.seed, shard.drawn) == (2500, drawn)


def test_a_filtered_shard_is_independent_of_who_draws_it_and_how(
    sampler: Sampler, classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"keep": "classifier>=0.9", "classifier": classifier, "duplicates": True}
    write_shards(sampler, 60, tmp_path / "whole", shard_size=20, **asked)
    monkeypatch.setattr("ganinfer.shards.drawing._MOST", 7)
    planned = plan(sampler, 60, shard_size=20, **asked)
    for numbers in ([2], [1, 0]):
        write_missing(planned, numbers, tmp_path / "parts", workers=1)
    planned.finish(tmp_path / "parts")
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_rejection_keeps_what_is_accepted_of_a_class(sampler: Sampler, tmp_path: Path) -> None:
    written = write_shards(
        sampler, 40, tmp_path, seed=7, labels=1, format="npz", keep="rejection>=90"
    )
    images, seeds = accepted(sampler, 40, seed=7, labels=1, percentile=90)
    with np.load(tmp_path / "shard-000000.npz") as arrays:
        assert np.array_equal(arrays["seeds"], seeds)
        assert np.array_equal(arrays["images"], images)
    assert written.shards[0].drawn == int(seeds[-1]) - 7 + 1


def test_a_classifier_may_take_bytes_and_give_probabilities(
    sampler: Sampler, classifier: Path, tmp_path: Path
) -> None:
    labels = draw_labels(range(64), 3)
    batch = Batch(np.arange(64, dtype=np.uint64), labels, sampler.sample(64))
    told, kept = set(), []
    for bytes_in, softmax in itertools.product([False, True], repeat=2):
        path = write_classifier(tmp_path / "x.onnx", bytes_in=bytes_in, softmax=softmax)
        found = kept_by("classifier>=0.9", sampler, path).filter
        told.add(found.words)
        kept.append(found.keeps(batch).tolist())
    assert kept == [kept[0]] * 4
    assert 0 < sum(kept[0]) < 64
    assert told == {
        "confidence of x.onnx (logits, through softmax) of 0.9 or more",
        "confidence of x.onnx (probabilities) of 0.9 or more",
    }
    any_class = found.keeps(batch._replace(labels=None))
    assert (any_class >= np.array(kept[0])).all()


def test_parts_say_what_was_drawn_and_the_last_word_adds_it_up(
    gan, judged: Exported, sampler: Sampler, classifier: Path, tmp_path: Path
) -> None:
    here = ("--backend", "onnxruntime", "--precision", "fp32")
    kept = ("--keep", "classifier >= 0.9", "--classifier", classifier)
    command = ["sample", judged.path, "-n", 40, "-o", "parts", "--shard-size", 10, *kept, *here]
    for part in ("0/2", "1/2"):
        done = gan(*command, "--shards", part, cwd=tmp_path)
        assert "kept 20 of " in done.stdout, done.stderr
    done = gan(*command, "--finish", cwd=tmp_path)
    index = Index.model_validate_json((tmp_path / "parts" / INDEX).read_bytes())
    words = "confidence of colours.onnx (logits, through softmax) of 0.9 or more"
    assert f"kept 40 of {index.drawn} drawn: {words}" in done.stdout
    card = (tmp_path / "parts" / "README.md").read_text()
    assert f"| kept | {words}: 40 images of {index.drawn} drawn |" in card
    assert "| seeds | from 0 on, 1000 a file to choose from |" in card
    request = index.request
    assert (request.keep, request.tries) == ("classifier>=0.9", 100)
    assert request.classifier_sha256 == sha256_file(classifier)
    with pytest.raises(RequestError, match=r"keep 'classifier>=0.9', now None; .*tries 100, now"):
        write_shards(sampler, 40, tmp_path / "parts", shard_size=10)


def test_a_filter_that_keeps_nearly_nothing_ends_in_words(
    sampler: Sampler, classifier: Path, tmp_path: Path
) -> None:
    words = (
        r"shard-000000.tar: keep classifier>=1: after 600 seeds \d+ of 20 images are missing, \d+"
        r" of them of class \w+; ask for less, or for more tries than 30 an image"
    )
    with pytest.raises(RequestError, match=words):
        write_shards(sampler, 20, tmp_path, keep="classifier>=1", classifier=classifier, tries=30)
    assert list(contents(tmp_path)) == ["request.json"]


def test_a_filter_of_ones_own_is_a_function(
    sampler: Sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_filters.py").write_text("""
from ganinfer.filters import Filter

def dark(sampler, *, least: float = 0.0):
    return Filter("dark ones", lambda batch: batch.images.mean((1, 2, 3)) < 255 - least)

def wrong(sampler):
    return Filter("", lambda batch: batch.seeds)
""")
    monkeypatch.chdir(tmp_path)
    written = write_shards(sampler, 9, tmp_path / "a", keep="mine_filters:dark>=204.5")
    assert written.shards[0].drawn > 9
    request = json.loads((tmp_path / "a" / "request.json").read_text())
    assert request["keep"].startswith("mine_filters:dark@")
    assert request["keep"].endswith(">=204.5")
    with pytest.raises(ConfigError, match=r"filter gives uint64 \(64,\); expected bool \(64,\)"):
        write_shards(sampler, 9, tmp_path / "b", keep="mine_filters:wrong")


def test_a_filter_goes_to_another_process_and_is_the_same_there(
    sampler: Sampler, tmp_path: Path
) -> None:
    path = write_classifier(tmp_path / "x.onnx")
    keeping = kept_by("classifier>=0.9", sampler, path)
    pickled = pickle.dumps(keeping)
    again = pickle.loads(pickled)
    with again.asked[1]:
        assert (again.name, again.filter.words) == (keeping.name, keeping.filter.words)
    write_classifier(path, softmax=True)
    with pytest.raises(RequestError, match="another here than where the work was planned"):
        pickle.loads(pickled)


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"keep": "classifier>0.9"}, RequestError, "keep 'classifier>0.9': expected a filter"),
        ({"keep": "truncation"}, RequestError, "say truncation alone, as in --truncation 0.7"),
        ({"keep": "sharp>=2"}, ConfigError, "no 'sharp'; it takes classifier, rejection, or"),
        ({"keep": "rejection>=101"}, ConfigError, "keep least: found 101.0"),
        ({"keep": "rejection", "classifier": 1}, ConfigError, "has no option 'classifier'"),
        ({"keep": None, "classifier": 1}, RequestError, "nothing looks with it"),
        ({"keep": "classifier", "classifier": 1}, RequestError, "in quotes, for > is the shell's"),
        ({"keep": "classifier>=90", "classifier": 1}, RequestError, "found the confidence 90"),
        ({"keep": "classifier>=0.9"}, RequestError, "name its ONNX file: --classifier"),
        ({"keep": "rejection", "tries": 0}, RequestError, "tries: found 0"),
        (
            {"keep": "rejection", "seed": 2**64 - 999},
            RequestError,
            "seed: found .* for 1000 images",
        ),
    ],
)
def test_what_cannot_be_kept_is_refused_before_anything_is_written(
    sampler: Sampler, classifier: Path, tmp_path: Path, asked: dict, error: type, words: str
) -> None:
    if "classifier" in asked:
        asked = {**asked, "classifier": classifier}
    with pytest.raises(error, match=words):
        write_shards(sampler, **{"n": 10, "folder": tmp_path / "shards", **asked})
    assert not (tmp_path / "shards").exists()


def test_rejection_needs_a_discriminator(bundle: Path) -> None:
    with Sampler(bundle) as opened, pytest.raises(RequestError, match="--with-discriminator"):
        plan(opened, 1, keep="rejection")


def test_a_classifier_of_something_else_is_refused(
    sampler: Sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "other.onnx"

    def refused(error: type) -> str:
        with pytest.raises(error) as caught:
            plan(sampler, 1, keep="classifier>=0.5", classifier=path)
        return str(caught.value)

    assert "No such file or directory; give an ONNX file" in refused(RequestError)
    path.write_text("weights")
    assert "is no ONNX file" in refused(RequestError)
    write_classifier(path)
    graph = onnx.load(path)
    path.write_bytes(path.read_bytes()[:0])
    assert "refuses the graph" in refused(BackendUnavailable)
    onnx.save(graph, path, save_as_external_data=True, location="w.data", size_threshold=0)
    assert "has its weights in w.data; expected one file" in refused(RequestError)
    monkeypatch.setitem(globals(), "FLOATS", ["N", 1, 28, 28])
    write_classifier(path)
    assert (
        "takes tensor(float) ['N', 1, 28, 28]; expected one input, tensor(float)"
        " ['N', 3, 16, 16] or tensor(uint8) ['N', 16, 16, 3]"
    ) in refused(RequestError)
    monkeypatch.setitem(globals(), "FLOATS", [1, 3, 16, 16])
    write_classifier(path)
    assert "takes tensor(float) [1, 3, 16, 16]; expected" in refused(RequestError)
