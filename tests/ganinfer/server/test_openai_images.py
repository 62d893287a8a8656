"""OpenAI's images, with its own client."""

import base64
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ganinfer import Sampler

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from hosting import Host, hosted, pixels


@pytest.fixture(scope="module")
def sampler(bundle: Path) -> Iterator[Sampler]:
    with Sampler(bundle, device="cpu", batch_size=4) as opened:
        yield opened


@pytest.fixture(scope="module")
def host(sampler: Sampler) -> Iterator[Host]:
    with hosted({"tiny": sampler}) as started:
        yield started


@pytest.fixture
def client(host: Host) -> Iterator[Any]:
    openai = pytest.importorskip("openai", reason="needs openai")
    with openai.OpenAI(base_url=f"{host.url}/v1", api_key="none", max_retries=0) as opened:
        yield opened


def test_its_client_lists_models(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"


def test_its_client_gets_images_of_a_class(client: Any, sampler: Sampler) -> None:
    answer = client.images.generate(
        model="tiny",
        prompt="2",
        n=3,
        size="16x16",
        response_format="b64_json",
        extra_body={"seed": "18446744073709551613"},
    )
    found = np.stack([pixels(base64.b64decode(image.b64_json)) for image in answer.data])
    assert np.array_equal(found, sampler.sample(3, seed=2**64 - 3, labels="2"))
    assert [image.seed for image in answer.data] == [str(2**64 - 3 + i) for i in range(3)]


def test_its_client_gets_urls_that_are_kept_for_ever(client: Any, sampler: Sampler) -> None:
    drawn = sampler.stats["requests"]
    answer = client.images.generate(prompt="1", n=2, extra_body={"seed": 40})
    assert sampler.stats["requests"] == drawn  # until they are asked for
    for seed, image in enumerate(answer.data, start=40):
        with urllib.request.urlopen(image.url, timeout=60) as picture:
            assert "immutable" in picture.headers["Cache-Control"]
            found = pixels(picture.read())
        assert np.array_equal(found, sampler.sample(1, seed=seed, labels=1)[0])


def test_without_a_seed_images_differ_and_tell_theirs(client: Any, sampler: Sampler) -> None:
    one, two = (client.images.generate(prompt="", model="tiny").data[0] for _ in range(2))
    assert one.seed != two.seed
    with urllib.request.urlopen(one.url, timeout=60) as picture:
        assert np.array_equal(pixels(picture.read()), sampler.sample(1, seed=int(one.seed))[0])


def test_its_client_raises_what_is_wrong(client: Any) -> None:
    openai = pytest.importorskip("openai")
    with pytest.raises(openai.BadRequestError, match="draws 16x16"):
        client.images.generate(prompt="1", size="1024x1024")
    with pytest.raises(openai.NotFoundError, match="this serves tiny"):
        client.images.generate(prompt="1", model="dall-e-3")
    with pytest.raises(openai.UnprocessableEntityError, match="no such class"):
        client.images.generate(prompt="a cat")
