"""Pictures by URL, and what is kept of them."""

import io
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ganinfer import Sampler, grid

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from hosting import Host, hosted, pixels

from ganinfer.server import Serving


@pytest.fixture(scope="module")
def sampler(bundle: Path) -> Iterator[Sampler]:
    with Sampler(bundle, device="cpu", batch_size=4) as opened:
        yield opened


@pytest.fixture(scope="module")
def host(sampler: Sampler) -> Iterator[Host]:
    with hosted({"tiny": sampler}) as started:
        yield started


@pytest.mark.parametrize("form", ["png", "webp", "npy"])
def test_an_image_is_that_of_the_sampler(host: Host, sampler: Sampler, form: str) -> None:
    answer = host.get(f"/v1/tiny/image.{form}?seed=18446744073709551615&label=2&truncation=0.7")
    assert answer.status == 200
    expected = sampler.sample(seeds=[2**64 - 1], labels=2, truncation=0.7)[0]
    found = np.load(io.BytesIO(answer.body)) if form == "npy" else pixels(answer.body)
    assert np.array_equal(found, expected)
    assert answer.headers["content-type"].endswith({"npy": "x-npy"}.get(form, form))


def test_a_jpeg_is_about_that(host: Host, sampler: Sampler) -> None:
    found = pixels(host.get("/v1/tiny/image.jpeg?seed=5").body).astype(float)
    assert np.abs(found - sampler.sample(1, seed=5)[0]).mean() < 20


def test_without_a_label_the_seed_draws_its_own(host: Host, sampler: Sampler) -> None:
    body = host.get("/v1/tiny/image.png?seed=11").body
    assert np.array_equal(pixels(body), sampler.sample(1, seed=11)[0])


def test_a_grid_is_that_of_the_library(host: Host, sampler: Sampler) -> None:
    found = pixels(host.get("/v1/tiny/grid.png?seed=3&n=6&columns=2&label=1").body)
    assert np.array_equal(found, grid(sampler.sample(6, seed=3, labels=1), columns=2))
    few = pixels(host.get("/v1/tiny/grid.png?seed=3&n=2&columns=99").body)  # no wider than full
    assert np.array_equal(few, grid(sampler.sample(2, seed=3), columns=2))
    assert pixels(host.get("/v1/tiny/grid.png").body).shape == grid(sampler.sample(16)).shape


def test_an_etag_saves_the_drawing(host: Host, sampler: Sampler) -> None:
    path = "/v1/tiny/image.png?seed=7&label=2"
    first = host.get(path)
    assert first.headers["cache-control"] == "no-cache"
    drawn = sampler.stats["requests"]
    for known in (first.headers["etag"], f'"x", W/{first.headers["etag"]}', "*"):
        again = host.get(path, If_None_Match=known)
        assert (again.status, again.body) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
    assert sampler.stats["requests"] == drawn
    assert host.get(path, If_None_Match='"other"').body == first.body
    assert sampler.stats["requests"] == drawn + 1


def test_each_picture_has_its_own_etag(host: Host) -> None:
    paths = ["image.png?seed=7", "image.png?seed=8", "image.npy?seed=7", "grid.png?n=1&seed=7"]
    paths += ["image.png?seed=7&label=1", "image.png?seed=7&truncation=0.7", "grid.png?seed=7"]
    assert len({host.get(f"/v1/tiny/{path}").headers["etag"] for path in paths}) == len(paths)
    same = ["image.png?label=2&seed=9", "image.png?seed=09&label=2"]
    assert len({host.get(f"/v1/tiny/{path}").headers["etag"] for path in same}) == 1


def test_a_url_that_pins_its_bundle_is_kept_for_ever(host: Host, sampler: Sampler) -> None:
    for digits in (12, 64):
        answer = host.get(f"/v1/tiny/image.png?seed=7&bundle={sampler.sha256[:digits]}")
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert host.get("/v1/tiny/image.png?bundle=0123456789ab").headers["cache-control"] == "no-store"


def test_with_keys_nothing_is_kept_for_others(sampler: Sampler, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("secret\n")
    with hosted({"tiny": sampler}, Serving(api_keys=tmp_path / "keys")) as host:
        path = f"/v1/tiny/image.png?bundle={sampler.sha256[:12]}"
        answer = host.get(path, X_Api_Key="secret")
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"


def test_head_tells_headers_alone(host: Host) -> None:
    told = host.ask("HEAD", "/v1/tiny/image.png?seed=7", None)
    assert told.body == b""
    assert told.headers["etag"] == host.get("/v1/tiny/image.png?seed=7").headers["etag"]


def test_another_bundle_has_another_etag(
    copied: Path, bundle: Path, tmp_path: Path, other_bundle: Path
) -> None:
    path = "/v1/tiny/image.png?seed=7"
    with Sampler(copied, device="cpu", batch_size=2) as sampler, hosted({"tiny": sampler}) as host:
        old, sha256 = host.get(path), sampler.sha256
        assert sampler.reload(other_bundle)
        new = host.get(path, If_None_Match=old.headers["etag"])
        assert new.status == 200
        assert new.headers["etag"] != old.headers["etag"]
        assert host.get(f"{path}&bundle={sha256[:12]}").status == 404


@pytest.fixture
def other_bundle(bundle: Path, tmp_path: Path) -> Path:
    """The same generator under another name, so that its content is another one."""
    from ganinfer.bundle.manifest import MANIFEST, MANIFEST_DIGEST, digest_line

    place = Path(shutil.copytree(bundle, tmp_path / "other.gan"))
    data = (place / MANIFEST).read_bytes().replace(b'"dcgan"', b'"other"', 1)
    assert data != (bundle / MANIFEST).read_bytes()
    (place / MANIFEST).write_bytes(data)
    (place / MANIFEST_DIGEST).write_bytes(digest_line(data))
    return place


def test_urllib_reads_it(host: Host) -> None:
    with urllib.request.urlopen(f"{host.url}/v1/tiny/image.png?seed=1", timeout=60) as answer:
        assert answer.headers["Content-Type"] == "image/png"
        assert pixels(answer.read()).shape == (16, 16, 3)
