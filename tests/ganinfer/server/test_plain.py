"""Pictures by URL, and what is kept of them."""

import io
import math
import shutil
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ganinfer import DeadlineExceeded, Sampler, grid
from ganinfer.film import encode_film
from ganinfer.scheduler.opening import Opening

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from hosting import Host, hosted, pixels, wait_until

from ganinfer.server import Serving
from ganinfer.server.plain import until
from ganinfer.server.shelf import open_shelf


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


def test_an_image_between_two_seeds_is_that_of_the_way(host: Host, sampler: Sampler) -> None:
    path = "/v1/tiny/image.png?seed=7&to=18446744073709551615&label=2&truncation=0.8&t="
    whole = sampler.interpolate(7, 2**64 - 1, 5, label=2, truncation=0.8)
    for place, expected in zip(("0", "0.25", "0.5", "0.75", "1"), whole, strict=True):
        assert np.array_equal(pixels(host.get(path + place).body), expected)


def test_a_film_is_the_way_from_seed_to_seed(host: Host, sampler: Sampler) -> None:
    way = sampler.interpolate(7, 8, 6, label=1)
    answer = host.get("/v1/tiny/interpolate.webp?seed=7&to=8&frames=6&fps=20&label=1")
    assert answer.headers["content-type"] == "image/webp"
    with Image.open(io.BytesIO(answer.body)) as film:
        assert (film.n_frames, film.size) == (6, (256, 256))
        for number, expected in enumerate(way):
            film.seek(number)
            assert np.array_equal(np.asarray(film.convert("RGB"))[8::16, 8::16], expected)
            assert film.info["duration"] == 50
    assert answer.body == encode_film(way, "webp", fps=20)
    again = host.get(
        "/v1/tiny/interpolate.webp?to=8&seed=7&frames=6&fps=20&label=1",
        If_None_Match=answer.headers["etag"],
    )
    assert again.status == 304
    other = host.get("/v1/tiny/interpolate.webp?seed=7&to=8&frames=6&fps=10&label=1")
    assert other.headers["etag"] != answer.headers["etag"]


@pytest.mark.parametrize(("form", "kind"), [("gif", "image/gif"), ("mp4", "video/mp4")])
def test_films_are_of_each_kind(host: Host, sampler: Sampler, form: str, kind: str) -> None:
    if form == "mp4":
        pytest.importorskip("av")
    path = f"/v1/tiny/interpolate.{form}?seed=7&to=8&frames=3&bundle={sampler.sha256[:12]}"
    answer = host.get(path)
    assert answer.body == encode_film(sampler.interpolate(7, 8, 3), form)
    assert answer.headers["content-type"] == kind
    assert answer.headers["cache-control"].endswith("immutable")


def test_an_mp4_without_pyav_names_its_pip_command(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    told = host.get("/v1/tiny/interpolate.mp4?seed=7&to=8")
    assert told.status == 501
    assert told.json["error"] == "av is not installed; run: pip install 'ganpipe[video]'"
    assert host.get("/v1/tiny").json["films"] == ["gif", "webp"]


def test_a_film_counts_as_large_as_it_is(sampler: Sampler) -> None:
    with hosted({"tiny": sampler}, Serving(max_megapixels=0.2)) as host:
        assert host.get("/v1/tiny/interpolate.gif?to=8&frames=3").status == 200
        told = host.get("/v1/tiny/interpolate.gif?to=8&frames=4")
        assert told.status == 413
        assert "256x256" in told.json["error"]


def test_a_film_is_packed_until_its_deadline_or_nobody_waits_for_it(sampler: Sampler) -> None:
    images, given_up = sampler.interpolate(7, 8, 3), threading.Event()
    assert encode_film(until(math.inf, given_up, images), "gif") == encode_film(images, "gif")
    with pytest.raises(DeadlineExceeded, match="fewer frames"):
        encode_film(until(time.monotonic() - 1, given_up, images), "gif")
    given_up.set()
    with pytest.raises(DeadlineExceeded):
        encode_film(until(math.inf, given_up, images), "gif")


def test_a_film_holds_up_no_picture_and_who_hangs_up_takes_it_back(sampler: Sampler) -> None:
    path = "/v1/tiny/interpolate.gif?seed=7&to=8&frames=3"
    gone = 'path="/v1/{model}/interpolate.{format}",status="499"} 1'
    release = threading.Event()
    with hosted({"tiny": sampler}) as host:
        host.application.service.films.submit(release.wait, 60)  # as a long one
        drawn = sampler.stats["requests"]
        with socket.create_connection(("127.0.0.1", host.port)) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            wait_until(lambda: sampler.stats["requests"] > drawn, "it is drawn")
            assert host.get("/v1/tiny/image.png?seed=7").status == 200
        wait_until(lambda: gone in host.get("/metrics").body.decode(), "it is taken back")
        release.set()
        assert host.get(path).status == 200


def test_mixtures_of_classes_are_labels(mixable: Path) -> None:
    with Sampler(mixable, device="cpu", batch_size=2) as mixer, hosted({"tiny": mixer}) as host:
        found = host.get("/v1/tiny/image.png?seed=5&label=0:0.7,2:0.3")
        assert np.array_equal(
            pixels(found.body), mixer.sample(1, seed=5, labels={0: 0.7, 2: 0.3})[0]
        )
        same = host.get("/v1/tiny/image.png?seed=5&label=2:0.3,0:0.7")
        assert same.headers["etag"] == found.headers["etag"]
        assert host.get("/v1/tiny").json["mixtures"]


def test_a_model_says_what_it_can_be_asked_for(host: Host, sampler: Sampler, styled: Any) -> None:
    assert host.get("/v1/tiny").json == {
        "model": "tiny",
        "bundle": sampler.sha256,
        "height": 16,
        "width": 16,
        "channels": 3,
        "classes": ["0", "1", "2"],
        "mixtures": False,
        "truncation_modes": ["resample", "scale"],
        "truncation_range": None,
        "default_truncation": None,
        "spaces": ["z"],
        "films": ["gif", "webp", "mp4"],
        "max_images": 1024,
    }
    with (
        Sampler(styled.path, device="cpu", batch_size=1) as other,
        hosted({"cats": other}, Serving(max_megapixels=0.001)) as host,
    ):
        told = host.get("/v1/cats").json
        assert told["spaces"] == ["z", "w"]
        assert told["truncation_range"] == [0, 2]
        assert told["max_images"] == 3
        path = "/v1/cats/image.png?seed=3&to=8&t=0.5&space=w&label=cat"
        expected = other.interpolate(3, 8, [0.5], label="cat", space="w")[0]
        assert np.array_equal(pixels(host.get(path).body), expected)


def test_a_model_is_told_of_without_being_opened(bundle: Path) -> None:
    opening = Opening(device="cpu", batch_size=1)
    shelf = open_shelf({"one": bundle, "other": bundle}, opening, max_open=1)
    with hosted(shelf) as host:
        told = host.get("/v1/other").json
        assert told == {**host.get("/v1/one").json, "model": "other"}
        assert list(shelf.samplers) == ["one"]
    shelf.close()


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
