"""Several bundles in one process, of which only so many are open at once."""

import asyncio
import logging
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ganinfer import RequestError, Sampler
from ganinfer.errors import BundleError, DeadlineExceeded
from ganinfer.scheduler.opening import Opening

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from hosting import Hosted, hosted, pixels, seeds, wait_until
from starlette.exceptions import HTTPException

from ganinfer.server import Serving
from ganinfer.server.shelf import Shelf, open_shelf

OPENING = Opening(device="cpu", backend="onnxruntime", precision="fp32", batch_size=2)
NAMES = ("a", "b", "c")
GRAPH = "onnx/fp32.onnx"


@pytest.fixture
def places(bundle: Path, tmp_path: Path) -> dict[str, Path]:
    """Three bundles, to be changed."""
    return {name: Path(shutil.copytree(bundle, tmp_path / f"{name}.gan")) for name in NAMES}


@pytest.fixture
def shelf(places: dict[str, Path]) -> Iterator[Shelf]:
    """On which one is open."""
    found = open_shelf(places, OPENING, 1)
    yield found
    found.close()


def infer(host: Hosted, name: str, n: int = 1) -> Any:
    return host.post(f"/v2/models/{name}/infer", seeds(n))


def test_another_one_is_opened_when_it_is_asked_for(shelf: Shelf, bundle: Path) -> None:
    with Sampler(bundle, device="cpu") as sampler:
        expected = sampler.sample(1, seed=7, labels=2)[0]
    with hosted(shelf) as host:
        assert list(shelf.samplers) == ["a"]
        for name in ("b", "c", "a", "a"):
            answer = host.get(f"/v1/{name}/image.png?seed=7&label=2")
            assert np.array_equal(pixels(answer.body), expected)
            assert list(shelf.samplers) == [name]
        named = {"model": "b", "prompt": "2", "seed": 7, "response_format": "b64_json"}
        assert host.post("/v1/images/generations", named).status == 200
        assert list(shelf.samplers) == ["b"]


def test_the_one_that_was_used_longest_ago_makes_room(places: dict[str, Path]) -> None:
    shelf = open_shelf(places, OPENING, 2)
    try:
        with hosted(shelf) as host:
            for name, held in (("a", "ba"), ("c", "ac"), ("a", "ca"), ("b", "ab")):
                assert infer(host, name).status == 200
                assert list(shelf.samplers) == list(held)
    finally:
        shelf.close()


def test_what_is_not_open_is_told_without_opening_it(shelf: Shelf) -> None:
    with hosted(shelf) as host:
        for path in ("/v2/models/{}", "/v2/models/{}/config", "/v2/models/{}/ready"):
            of_open, of_closed = (host.get(path.format(name)) for name in "ab")
            assert of_open.status == of_closed.status == 200
            assert of_closed.body.replace(b'"b"', b'"a"') == of_open.body
        index = host.post("/v2/repository/index", {}).json
        assert {(entry["name"], entry["state"]) for entry in index} == {(n, "READY") for n in NAMES}
        (stats,) = host.get("/v2/models/b/stats").json["model_stats"]
        assert stats["inference_count"] == 0
        assert [card["id"] for card in host.get("/v1/models").json["data"]] == list(NAMES)
        assert host.get("/v1/models/b").status == 200
        assert host.get("/v2/models/d").status == host.get("/v1/d/image.png").status == 404
        assert host.get("/readyz").json["models"] == dict.fromkeys(NAMES, True)
        assert list(shelf.samplers) == ["a"]


def test_over_grpc_it_is_the_same(shelf: Shelf, bundle: Path) -> None:
    pytest.importorskip("grpc", reason="pip install 'ganpipe[serve-grpc]'")
    from ganinfer.open_inference import served_model

    with Sampler(bundle, **vars(OPENING)) as sampler:
        expected = sampler.sample(3)
    with hosted(shelf, grpc=True) as host:
        served = served_model(f"grpc://{host.grpc}", "b", (16, 16, 3))
        assert list(shelf.samplers) == ["a"]
        assert np.array_equal(served.images([0, 1, 2]), expected)
        assert list(shelf.samplers) == ["b"]


def test_many_who_wait_have_it_opened_once(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    with hosted(shelf) as host, caplog.at_level(logging.INFO, "ganinfer.server.shelf"):
        answers: list[int] = []
        callers = [
            threading.Thread(target=lambda: answers.append(infer(host, "b").status))
            for _ in range(12)
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert answers == [200] * 12
    assert caplog.messages.count("b: opened") == 1


def test_requests_in_flight_are_answered_first(shelf: Shelf, bundle: Path) -> None:
    with hosted(shelf, Serving(max_images=10_000)) as host:
        answers: dict[str, Any] = {}
        drawn = shelf.samplers["a"].stats["images"]
        long = threading.Thread(target=lambda: answers.update(a=infer(host, "a", 4000)))
        long.start()
        wait_until(lambda: shelf.samplers["a"].stats["images"] > drawn, "it is begun")
        answers["b"] = infer(host, "b")
        long.join()
        assert answers["a"].status == answers["b"].status == 200
    with Sampler(bundle, **vars(OPENING)) as sampler:
        assert answers["a"].body.endswith(sampler.sample(4000).tobytes())


def test_among_many_callers_of_many_models_none_is_lost(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = open_shelf(places, OPENING, 2)
    most, own = 0, Sampler.open

    async def opened(*arguments: Any, **options: Any) -> Sampler:
        nonlocal most
        most = max(most, 1 + len([s for s in shelf.samplers.values() if s.live]))
        return await own(*arguments, **options)

    monkeypatch.setattr(Sampler, "open", opened)
    answers: list[int] = []
    try:
        with hosted(shelf) as host:

            def call(first: int) -> None:
                for n in range(8):
                    answers.append(infer(host, NAMES[(first + n * n) % 3], 3).status)

            callers = [threading.Thread(target=call, args=(n,)) for n in range(5)]
            for caller in callers:
                caller.start()
            for caller in callers:
                caller.join()
    finally:
        shelf.close()
    assert answers == [200] * 40
    assert most == 2


def test_one_that_cannot_be_opened_is_told_and_not_tried_at_each_request(
    shelf: Shelf,
    places: dict[str, Path],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ganinfer.server.shelf._FIRST_PAUSE_S", 60.0)
    whole = damage(places["b"])
    with hosted(shelf) as host:
        for _ in range(3):
            answer = infer(host, "b")
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert "model 'b' cannot be opened now" in answer.json["error"]
            assert str(places["b"].parent) not in answer.json["error"]
        assert host.get("/v2/models/b/ready").status == 503
        told = host.get("/readyz")
        assert (told.status, told.json["models"]) == (200, {"a": True, "b": False, "c": True})
        assert infer(host, "a").status == 200
        assert sum("fp32.onnx: found sha256" in line for line in caplog.messages) == 1
        (places["b"] / GRAPH).write_bytes(whole)
        shelf.reload()
        assert host.get("/v2/models/b/ready").status == 200
        assert infer(host, "b").status == 200


def test_one_that_could_not_be_opened_is_tried_again(
    shelf: Shelf, places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ganinfer.server.shelf._FIRST_PAUSE_S", 0.01)
    whole = damage(places["b"])
    with hosted(shelf) as host:
        assert infer(host, "b").status == 503
        (places["b"] / GRAPH).write_bytes(whole)
        wait_until(lambda: infer(host, "b").status == 200, "it is tried again")
        assert host.get("/v2/models/b/ready").status == 200


def damage(place: Path) -> bytes:
    """Change a byte of a bundle's graph; its content before."""
    whole = (place / GRAPH).read_bytes()
    (place / GRAPH).write_bytes(whole[:-1] + b"x")
    return whole


def test_a_reload_looks_again_at_what_is_not_open(shelf: Shelf, places: dict[str, Path]) -> None:
    from conftest import rewrite_manifest

    with hosted(shelf) as host:
        before = host.get("/v2/models/b/config").json["parameters"]["bundle_sha256"]
        rewrite_manifest(places["b"], lambda tree: tree["model"].update(family="other"))
        shelf.reload()
        after = host.get("/v2/models/b/config").json["parameters"]["bundle_sha256"]
        assert before != after
        assert infer(host, "b").status == 200
        assert host.get("/v2/models/b/config").json["parameters"]["bundle_sha256"] == after


def test_who_waits_longer_than_that_is_told(shelf: Shelf) -> None:
    async def ask() -> None:
        with pytest.raises(DeadlineExceeded, match="model 'b' is being opened"):
            async with shelf.lent("b", 0.0):
                pass
        async with shelf.lent("b", 60.0) as (sampler, timeout_s):
            assert sampler.live
            assert 0 < timeout_s < 60.0

    asyncio.run(ask())


def test_mistakes_are_told_before_anything_is_served(places: dict[str, Path]) -> None:
    shutil.rmtree(places["c"])
    with pytest.raises(BundleError, match="no such bundle"):
        open_shelf(places, OPENING, 1)
    for wrong in ({}, {"x y": "x.gan"}):
        with pytest.raises(RequestError):
            Shelf({}, wrong)


def test_samplers_of_a_host_stay_open(bundle: Path) -> None:
    async def ask(shelf: Shelf) -> None:
        async with shelf.lent("tiny", 1.0) as (sampler, _):
            assert sampler is shelf.samplers["tiny"]
        with pytest.raises(HTTPException):
            async with shelf.lent("other", 1.0):
                pass

    with Sampler(bundle, **vars(OPENING)) as sampler:
        asyncio.run(ask(Shelf({"tiny": sampler})))
        assert sampler.live
