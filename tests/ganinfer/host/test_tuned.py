import dataclasses
import logging
import pickle
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import run_python

from ganinfer import Sampler
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.bundle.archive import Bundle
from ganinfer.host.machine import this_host
from ganinfer.host.tuned import Choice, recall, remember, session

HALF = Choice(
    backend="onnxruntime",
    device="cpu",
    precision="fp16",
    images_per_s=1234.5,
    compared="1.8x onnxruntime fp32",
    measured_at=datetime(2024, 2, 29, 12).timestamp(),
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "ganpipe" / "tuned"


@pytest.fixture
def sha256(bundle: Path) -> str:
    with Bundle(bundle) as opened:
        return opened.sha256


def opened_by(bundle: Path, **options: str) -> dict:
    with Sampler(bundle, **options) as sampler:
        return sampler.info


def test_a_sampler_opens_the_choice_and_says_so(bundle: Path, sha256: str) -> None:
    remember(sha256, this_host(), HALF)
    info = opened_by(bundle)
    assert (info["backend"], info["precision"]) == ("onnxruntime", "fp16")
    assert info["reason"] == (
        "tuned on this host: 1,234 images/s at 64 a call, 1.8x onnxruntime fp32,"
        " measured here on 2024-02-29"
    )


@pytest.mark.parametrize(
    "options", [{"precision": "fp32"}, {"device": "cpu"}, {"backend": "onnxruntime"}]
)
def test_whoever_asks_for_something_gets_that(bundle, sha256, options) -> None:
    remember(sha256, this_host(), HALF)
    info = opened_by(bundle, **options)
    assert info["precision"] == "fp32"
    assert "tuned" not in info["reason"]


def test_a_choice_of_another_host_is_none_here(bundle: Path, sha256: str) -> None:
    remember(sha256, dataclasses.replace(this_host(), cpus=1000), HALF)
    assert recall(sha256) is None
    assert opened_by(bundle)["precision"] == "fp32"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"precision": "int8"}, "tuned onnxruntime int8: .*it holds fp32, fp16"),
        ({"backend": "coreml"}, "tuned coreml fp16: .*there is no 'coreml'"),
    ],
)
def test_a_choice_that_does_not_open_is_passed_over(bundle, sha256, change, reason) -> None:
    remember(sha256, this_host(), HALF.model_copy(update=change))
    info = opened_by(bundle)
    assert info["precision"] == "fp32"
    assert re.search(reason, info["reason"])


def test_what_was_measured_after_a_session_began_counts_from_the_next(
    bundle: Path, sha256: str
) -> None:
    remember(sha256, this_host(), HALF)
    later = {"precision": "fp32", "asked": False, "measured_at": session() + 1}
    remember(sha256, this_host(), HALF.model_copy(update=later))
    assert recall(sha256) == HALF
    of_this, of_next = (
        run_python(
            "import sys; from ganinfer import Sampler; from ganinfer.host import tuned;"
            "tuned._session = float(sys.argv[2]); print(Sampler(sys.argv[1]).info['precision'])",
            bundle,
            began,
        )
        for began in (session(), session() + 2)
    )
    assert (of_this, of_next) == (["fp16"], ["fp32"])


def test_a_process_that_gets_a_sampler_is_of_its_session(bundle: Path, sha256: str) -> None:
    with Sampler(bundle) as sampler:
        sent = pickle.dumps(sampler)
    measured = HALF.model_copy(update={"asked": False, "measured_at": session() + 0.001})
    remember(sha256, this_host(), measured)
    code = "import sys, pickle; s = pickle.loads(bytes.fromhex(sys.argv[1])); print({})"
    code += "; import ganinfer; print(ganinfer.Sampler(sys.argv[2]).info['precision'])"
    got = run_python(code.format("s.info['precision']"), sent.hex(), bundle)
    assert got == ["fp32", "fp32"]
    assert run_python(code.format(0), pickle.dumps(0).hex(), bundle)[1] == "fp16"


def test_a_later_choice_replaces_an_earlier_one(sha256: str) -> None:
    other = HALF.model_copy(update={"precision": "fp32"})
    remember("0" * 64, this_host(), HALF)
    remember(sha256, this_host(), HALF)
    remember(sha256, this_host(), other)
    assert (recall(sha256), recall("0" * 64)) == (other, HALF)


@pytest.mark.parametrize("text", [b"", b"\xff", b"[1]", b'{"a": [{"backend": 3}]}'])
def test_a_damaged_file_is_ignored_with_a_word(bundle, sha256, cache, caplog, text) -> None:
    cache.mkdir(parents=True)
    (cache / f"{sha256}.json").write_bytes(text)
    with caplog.at_level(logging.WARNING):
        assert recall(sha256) is None
    assert f"{sha256}.json: cannot be used" in caplog.text
    remember(sha256, this_host(), HALF)
    assert recall(sha256) == HALF
    assert [path.name for path in cache.iterdir()] == [f"{sha256}.json"]


def test_a_choice_that_gives_other_images_is_passed_over(
    bundle: Path, sha256: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As when a driver was updated since."""
    run = OnnxRuntimeBackend.run

    def wrong_in_half(self: OnnxRuntimeBackend, *args: Any, **options: Any) -> Any:
        images = run(self, *args, **options)
        if self.precision == "fp16":
            images ^= 64
        return images

    monkeypatch.setattr(OnnxRuntimeBackend, "run", wrong_in_half)
    remember(sha256, this_host(), HALF)
    with caplog.at_level(logging.WARNING):
        info = opened_by(bundle)
    assert info["precision"] == "fp32"
    assert re.search("tuned onnxruntime fp16: .*golden gate", info["reason"])
    assert "what was tuned for this host is no more" in caplog.text
