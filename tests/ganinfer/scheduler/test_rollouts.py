"""A bundle that is replaced: while others open it, and under a Sampler that serves."""

import asyncio
import pickle
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import rewrite_manifest, run_python, tiny_recipe

from ganexport.options import ExportOptions
from ganexport.pipeline import export_run
from ganinfer import Sampler
from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.tree import write_tree
from ganinfer.errors import BundleError, Closed, RequestError
from ganinfer.scheduler.sizes import doubled_up_to
from gantrain.game.config import parse_config
from gantrain.training.train import train

OPENING = {"device": "cpu", "backend": "onnxruntime", "precision": "fp32"}


@pytest.fixture(scope="module")
def other(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of another training of the same recipe."""
    folder = tmp_path_factory.mktemp("other")
    config = parse_config(tiny_recipe(shapes, seed=1, total_kimg=0.5), where="other.toml")
    run = train(config, folder / "run").run
    options = ExportOptions(precisions=["fp32"], num_images=1000)
    return export_run(run, folder / "x.gan", options).path


@pytest.fixture
def place(bundle: Path, tmp_path: Path) -> Path:
    """Where bundles are put."""
    return Path(shutil.copytree(bundle, tmp_path / "x.gan"))


def put(source: Path, place: Path) -> None:
    """Replace the bundle there by another one, as an export does."""
    with Bundle(source) as opened:
        write_tree(place, opened.tree(), single_file=False)


def until(happens: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_opens_meanwhile_is_the_old_or_the_new_one(bundle: Path, tmp_path: Path) -> None:
    path, other = tmp_path / "x.gan", Path(shutil.copytree(bundle, tmp_path / "y.gan"))
    rewrite_manifest(other, lambda tree: tree["model"].update(family="another"))
    trees = []
    for one in (bundle, other):
        with Bundle(one) as opened:
            trees.append((opened.sha256, opened.tree()))
    write_tree(path, trees[0][1], single_file=False)
    done = threading.Event()

    def replace() -> None:
        while not done.is_set():
            for _, tree in trees:
                write_tree(path, tree, single_file=False)

    writer = threading.Thread(target=replace)
    writer.start()
    try:
        found = set()
        for _ in range(30):
            with Sampler(path, **OPENING) as sampler:
                found.add(sampler.sha256)
    finally:
        done.set()
        writer.join()
    assert found <= {sha256 for sha256, _ in trees}


def test_what_is_damaged_is_not_tried_for_ever(place: Path) -> None:
    graph = place / "onnx" / "fp32.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match="sha256"):
        Sampler(place, **OPENING)


def test_requests_move_over_and_none_is_lost(bundle: Path, place: Path, other: Path) -> None:
    with Sampler(bundle, **OPENING) as one, Sampler(other, **OPENING) as two:
        allowed = [sampler.sample(40) for sampler in (one, two)]
    assert not np.array_equal(*allowed)
    done, answers, errors = threading.Event(), list[np.ndarray](), list[BaseException]()

    def call(sampler: Sampler, start: int) -> None:
        while not done.is_set():
            for ask in (sampler.sample, lambda n, seed: sampler.submit(n, seed=seed).result(60)):
                try:
                    images = ask(5, seed=start)
                    answers.append([np.array_equal(images, a[start : start + 5]) for a in allowed])
                except BaseException as error:
                    errors.append(error)

    with Sampler(place, **OPENING) as sampler:
        callers = [threading.Thread(target=call, args=(sampler, n)) for n in range(0, 20, 5)]
        for caller in callers:
            caller.start()
        for source in (other, bundle, other):
            put(source, place)
            assert sampler.reload()
            assert not sampler.reload()
        done.set()
        for caller in callers:
            caller.join()
        assert np.array_equal(sampler.sample(40), allowed[1])
        assert sampler.stats["requests"] >= 1
        until(lambda: not list(sampler._rollout._draining))  # the old ones are freed
    assert not errors
    assert all(any(right) for right in answers)
    assert {tuple(right) for right in answers} == {(True, False), (False, True)}


def test_the_new_one_has_drawn_each_size_before_its_first_request(
    place: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ganinfer.backends.onnxruntime import OnnxRuntimeBackend

    run, sizes = OnnxRuntimeBackend.run, Counter[tuple[str, int]]()
    with Sampler(place, **OPENING, batch_size=8) as sampler:
        old = sampler.sha256
        put(other, place)
        sampler.sample(40)
        largest = sampler._runner.stats.largest_batch
        assert largest > 1

        def counted(backend: Any, inputs: Any, **options: Any) -> Any:
            sizes[sampler.sha256, len(inputs)] += 1
            return run(backend, inputs, **options)

        monkeypatch.setattr(OnnxRuntimeBackend, "run", counted)
        assert sampler.reload()
        assert {(old, size) for size in doubled_up_to(largest)} <= set(sizes)
        assert sampler.stats["images"] == 0


def test_a_bad_one_leaves_the_old_one_serving(place: Path, other: Path) -> None:
    with Sampler(place, **OPENING) as sampler:
        expected, sha256 = sampler.sample(4), sampler.sha256
        put(other, place)
        graph = place / "onnx" / "fp32.onnx"
        graph.write_bytes(graph.read_bytes()[:-1] + b"x")
        with pytest.raises(BundleError, match=r"fp32\.onnx: found sha256"):
            sampler.reload()
        with pytest.raises(BundleError, match="no such bundle"):
            sampler.reload(place / "nowhere.gan")
        assert (sampler.sha256, sampler.ready) == (sha256, True)
        assert np.array_equal(sampler.sample(4), expected)
        assert sampler.reload(other)
        assert sampler.sha256 != sha256
        with pickle.loads(pickle.dumps(sampler)) as again:
            assert again.sha256 == sampler.sha256


def test_one_of_another_kind_is_refused(place: Path, other: Path, tmp_path: Path) -> None:
    names = Path(shutil.copytree(other, tmp_path / "names.gan"))
    rewrite_manifest(names, lambda tree: tree["model"].update(classes=["a", "b", "c"]))
    with Sampler(place, **OPENING) as sampler:
        with pytest.raises(BundleError, match=r"another kind .*classes \[.*\] -> \['a', 'b', 'c'"):
            sampler.reload(names)
        assert sampler.sample(1).any()


def test_a_closed_sampler_reloads_nothing(place: Path, other: Path) -> None:
    sampler = Sampler(place, **OPENING)
    sampler.close()
    put(other, place)
    with pytest.raises(Closed, match="closed"):
        sampler.reload()
    assert (sampler.live, sampler.ready) == (False, False)


def test_a_watched_place_is_reloaded(
    bundle: Path, place: Path, other: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Sampler(place, **OPENING, watch=True) as sampler:
        first = sampler.sha256
        put(other, place)
        until(lambda: sampler.sha256 != first)
        assert sampler.info["reload_error"] is None
        (place / "manifest.json").write_text("{}")
        until(lambda: sampler.info["reload_error"] is not None)
        assert "manifest" in sampler.info["reload_error"]
        assert sum("serves on" in line for line in caplog.messages) == 1
        assert sampler.sample(1).any()
        put(bundle, place)
        until(lambda: sampler.sha256 == first and sampler.info["reload_error"] is None)
    until(lambda: "ganinfer watch" not in [thread.name for thread in threading.enumerate()])


def test_only_a_path_is_watched(single_file: Path) -> None:
    content = single_file.read_bytes()
    with pytest.raises(RequestError, match=r"watch: expected a path on this machine, found b'PK"):
        Sampler(content, **OPENING, watch=True)
    with Sampler(single_file.as_uri(), **OPENING, watch=True) as sampler:
        assert not sampler.reload(content)


def test_a_pickled_sampler_watches_too(place: Path) -> None:
    with Sampler(place, **OPENING, watch=True) as sampler:
        copy = pickle.dumps(sampler)
    with pickle.loads(copy) as again:
        assert again._runner.opening.watch


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks")
def test_a_forked_process_watches_too(bundle: Path, place: Path, other: Path) -> None:
    """Before its first request, when it has no backends yet, and after."""
    code = """
import os, sys, time
from pathlib import Path
from ganinfer import Sampler
from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.tree import write_tree

place, bundle, other = sys.argv[1:]
trees = {}
place = Path(place)
for source in (bundle, other):
    with Bundle(Path(source)) as opened:
        trees[source] = opened.sha256, opened.tree()
sampler = Sampler(place, device="cpu", backend="onnxruntime", precision="fp32", watch=True)
read, write = os.pipe()
child = os.fork()
if child == 0:
    os.read(read, 1)
    sampler.sample(1)
    first = sampler.sha256
    print(first == trees[other][0], flush=True)
    write_tree(place, trees[bundle][1], single_file=False)
    end = time.monotonic() + 60
    while sampler.sha256 == first and time.monotonic() < end:
        time.sleep(0.01)
    print(sampler.sha256 == trees[bundle][0], sampler.sample(1).any(), flush=True)
    sys.exit(0)
write_tree(place, trees[other][1], single_file=False)
os.write(write, b"x")
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run_python(code, place, bundle, other) == ["True", "True True", "0"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks")
def test_a_forked_process_opens_what_is_replaced_meanwhile(place: Path) -> None:
    """By the same bundle, again and again."""
    code = """
import os, sys, threading
from pathlib import Path
from ganinfer import Sampler
from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.tree import write_tree

place = Path(sys.argv[1])
with Bundle(place) as opened:
    tree = opened.tree()
sampler = Sampler(place, device="cpu", backend="onnxruntime", precision="fp32")
done = threading.Event()

def replace():
    while not done.is_set():
        write_tree(place, tree, single_file=False)

writer = threading.Thread(target=replace)
writer.start()
for _ in range(8):
    child = os.fork()
    if child == 0:
        sys.exit(0 if sampler.sample(1).any() else 3)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
done.set()
writer.join()
"""
    assert run_python(code, place) == ["0"] * 8


def test_an_asyncio_program_opens_asks_and_closes(bundle: Path) -> None:
    async def main() -> list[np.ndarray]:
        async with await Sampler.open(bundle, **OPENING) as sampler:
            z = np.ones((2, 16), np.float32)
            found = [
                await sampler.asample(3, seed=4),
                await sampler.agenerate(z, [0, 1]),
                await sampler.ainterpolate(1, 2, 5, label=1),
                np.concatenate([images async for images in sampler.astream(9, 4, labels=2)]),
            ]
            async for _ in sampler.astream(100_000, 64):
                break  # what was asked for ahead is taken back
            with pytest.raises(RequestError):
                sampler.astream(9, labels="nobody")
        assert not sampler.live
        return found

    found = asyncio.run(main())
    with Sampler(bundle, **OPENING) as sampler:
        expected = [
            sampler.sample(3, seed=4),
            sampler.generate(np.ones((2, 16), np.float32), [0, 1]),
            sampler.interpolate(1, 2, 5, label=1),
            sampler.sample(9, labels=2),
        ]
    for one, right in zip(found, expected, strict=True):
        assert np.array_equal(one, right)


def test_who_waits_no_more_for_a_sampler_leaves_none_open(bundle: Path) -> None:
    from ganinfer.scheduler.runner import _open_runners

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await Sampler.open(bundle, **OPENING)
        await asyncio.get_running_loop().shutdown_default_executor()

    before = {id(runner) for runner in _open_runners if runner.live}
    asyncio.run(main())
    until(lambda: not [r for r in list(_open_runners) if r.live and id(r) not in before])
