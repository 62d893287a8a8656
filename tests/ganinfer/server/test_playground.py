"""The page of the server: its files, and what stands around them."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ganinfer import Sampler

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from hosting import Host, hosted

from ganinfer.server import Serving

PARTS = {
    "/": "text/html",
    "/playground/page.css": "text/css",
    "/playground/controls.js": "text/javascript",
    "/playground/icon.svg": "image/svg+xml",
    "/playground/page.js": "text/javascript",
    "/playground/pictures.js": "text/javascript",
    "/playground/snippets.js": "text/javascript",
    "/playground/source.js": "text/javascript",
}


@pytest.fixture(scope="module")
def host(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("secret\n")
    with (
        Sampler(bundle, device="cpu", batch_size=1) as sampler,
        hosted({"tiny": sampler}, Serving(api_keys=keys)) as started,
    ):
        yield started


@pytest.mark.parametrize("path", PARTS)
def test_the_page_is_there_without_a_key_and_lets_nothing_else_in(host: Host, path: str) -> None:
    answer = host.get(path)
    assert answer.status == 200
    assert answer.headers["content-type"].partition(";")[0] == PARTS[path]
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert "http" not in policy


def test_what_the_page_asks_needs_a_key(host: Host) -> None:
    for path in ("/v1/models", "/v1/tiny", "/v1/tiny/grid.png", "/playground/nothing.js"):
        assert host.get(path).status == 401


def test_it_names_no_other_place(host: Host) -> None:
    for path in PARTS:
        found = re.findall(r"(?:https?:)?//[\w.-]+", host.get(path).body.decode())
        assert set(found) <= {"http://www.w3.org"}  # the namespace of the icon
