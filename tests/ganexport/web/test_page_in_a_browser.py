"""A page of gan web in a real browser, without a network: its pixels are those of `Sampler`."""

import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import choose, chromium, press, rgba, shown, view, visited, write
from test_shapes import Z_DIM, disc

from ganexport.options import ExportOptions
from ganexport.pipeline import Exported, export
from ganexport.subjects.spec import Spec
from ganexport.web.options import WebOptions
from ganexport.web.page import write_page
from ganexport.web.runtime import kept_runtime
from ganinfer import Sampler
from ganinfer.drawing.images import Images

RUNTIME = kept_runtime()  # the user's; tests have another cache
SHAPES = {"oblong": (24, 40, 3), "clear": (31, 17, 4), "grey": (20, 20, 1), "planes": (17, 31, 2)}
LAST = 2**64 - 1

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not RUNTIME.exists(), reason="there is no onnxruntime-web: gan fetch web"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def visit(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Open the page of a bundle, which is a file; its pixels, once they are there."""
    folder = tmp_path_factory.mktemp("pages")

    def opened(bundle: Path, link: str = "", **context: Any) -> Any:
        file = folder / f"{bundle.parent.name} {bundle.stem}.html"  # a name that URLs must escape
        if not file.exists():
            write_page(bundle, file, WebOptions(runtime=RUNTIME))
        return visited(browser, f"{file.as_uri()}{link}", offline=True, **context)

    return opened


@contextmanager
def drawing(bundle: Path) -> Iterator[Sampler]:
    with Sampler(bundle, device="cpu", backend="onnxruntime", batch_size=8) as sampler:
        yield sampler


def check(found: Images, images: Images) -> None:
    """They are the same, but for a step here and there: processors round long sums otherwise."""
    expected = rgba(images)
    assert found.shape == expected.shape
    steps = np.abs(found.astype(int) - expected)
    assert steps.max() <= 1
    assert np.count_nonzero(steps) <= 2 + 1e-4 * images.size


def test_images_of_256_seeds_are_those_of_the_sampler(visit: Any, bundle: Path) -> None:
    with visit(bundle) as page, drawing(bundle) as sampler:
        check(shown(page), sampler.sample(36))
        assert "WebAssembly: 0 of 4,096 pixels differ" in page.locator("#proof").inner_text()
        assert f"sha256 {sampler.sha256}" in page.locator(".about").inner_text()
        choose(page, "Images", "64")
        found = []
        for _ in range(4):
            found.append(shown(page))
            press(page, "Next")
        check(np.concatenate(found), sampler.sample(256))
        write(page, "Seed", LAST - 63)
        check(shown(page), sampler.sample(64, seed=LAST - 63))


def test_classes_truncations_and_ways_are_chosen(visit: Any, bundle: Path) -> None:
    with visit(bundle) as page, drawing(bundle) as sampler:
        shown(page)
        choose(page, "Images", "9")
        choose(page, "Class", "2")
        write(page, "Truncation", "0.73")
        check(shown(page), sampler.sample(9, labels=2, truncation=0.73))
        choose(page, "Way of truncating", "scale")
        expected = sampler.sample(9, labels=2, truncation=0.73, truncation_mode="scale")
        check(shown(page), expected)
        choose(page, "Way of truncating", "")
        view(page, "Between two")
        write(page, "To seed", LAST)
        write(page, "Place on the way, 0 to 1", "0.123")
        check(shown(page), sampler.interpolate(0, LAST, [0.123], label=2, truncation=0.73))
        choose(page, "Class", "")
        check(shown(page), sampler.interpolate(0, LAST, [0.123], truncation=0.73))
        view(page, "Truncations")
        rows = [sampler.sample(5, truncation=value) for value in (0.2, 0.4, 0.6, 0.8, 1.0)]
        check(shown(page), np.concatenate(rows))


def test_classes_are_mixed(visit: Any, mixable: Path) -> None:
    with visit(mixable) as page, drawing(mixable) as sampler:
        check(shown(page), sampler.sample(36))
        choose(page, "Class", "0")
        choose(page, "Mixed with", "2")
        write(page, "Share of the second class, 0 to 1", "0.3")
        check(shown(page), sampler.sample(36, labels={0: 0.7, 2: 0.3}))


def test_a_stylegan_has_psi_and_two_spaces(visit: Any, styled: Exported) -> None:
    with visit(styled.path) as page, drawing(styled.path) as sampler:
        check(shown(page), sampler.sample(36))
        view(page, "Between two")
        choose(page, "Class", "fox")
        write(page, "Truncation", "0.7")
        asked = {"label": "fox", "truncation": 0.7}
        check(shown(page), sampler.interpolate(0, 1, [0.5], **asked))
        choose(page, "Space of the way", "w")
        check(shown(page), sampler.interpolate(0, 1, [0.5], space="w", **asked))


@pytest.mark.parametrize("name", SHAPES)
def test_images_of_any_shape_are_right(visit: Any, tmp_path: Path, name: str) -> None:
    options = ExportOptions(num_images=1000, precisions=["fp32"])
    place = export(disc(SHAPES[name]), Spec(z_dim=Z_DIM), tmp_path / name / "x.gan", options).path
    with visit(place) as page, drawing(place) as sampler:
        images, found = sampler.sample(36), shown(page)
        if name == "planes":  # side by side
            images = np.concatenate([images[..., :1], images[..., 1:]], axis=2)
        if name == "clear":  # a canvas holds colours times opacity
            assert np.array_equal(found[..., 3], images[..., 3])
            products = [all_[..., :3] * (all_[..., 3:] / 255) for all_ in (found, images)]
            assert np.abs(products[0] - products[1]).max() < 2
        else:
            check(found, images)


def test_a_link_gives_the_same_pixels_and_favourites_stay(visit: Any, bundle: Path) -> None:
    allowed = ["clipboard-read", "clipboard-write"]
    with visit(bundle, permissions=allowed) as page:
        shown(page)
        choose(page, "Images", "4")
        write(page, "Seed", LAST - 3)
        before = shown(page)
        press(page, "Keep")
        press(page, "Copy link")
        page.get_by_text("Link copied").wait_for()
        link = page.evaluate("navigator.clipboard.readText()")
        page.reload()
        assert np.array_equal(shown(page), before)
        press(page, "Random")
        shown(page)
        page.get_by_role("button", name=f"Show {bundle.stem}: Seeds").click()
        page.get_by_text(f"Seeds {LAST - 3}").wait_for()
        assert np.array_equal(shown(page), before)
    with visit(bundle, f"#{link.partition('#')[2]}") as page:
        assert np.array_equal(shown(page), before)


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ("#model=other", "model other: this page has another one"),
        ("#bundle=000000000000&n=1", "bundle 000000000000: this page has another one"),
        ("#seed=many&n=1", "seed: found 'many'"),
        ("#seed=18446744073709551615&to=18446744073709551616&view=way", "expected 0 to 2**64 - 1"),
        ("#label=cat&n=1", "label cat: there is no such class"),
        ("#truncation=-1&n=1", "truncation -1"),
    ],
)
def test_what_cannot_be_drawn_is_told(visit: Any, bundle: Path, link: str, words: str) -> None:
    with visit(bundle, link) as page:
        page.get_by_role("alert").get_by_text(words).wait_for()
        assert not page.locator("#keep").is_visible()


def test_a_folder_is_for_a_server(browser: Any, bundle: Path, tmp_path: Path) -> None:
    write_page(bundle, tmp_path / "site", WebOptions(runtime=RUNTIME))
    with (
        hosted(tmp_path / "site") as url,
        visited(browser, url) as page,
        drawing(bundle) as sampler,
    ):
        check(shown(page), sampler.sample(36))


@contextmanager
def hosted(folder: Path) -> Iterator[str]:
    """Any server will do."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()
