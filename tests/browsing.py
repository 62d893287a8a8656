"""A real browser without a window: the system's Chromium, driven by Playwright."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from ganinfer.drawing.images import Images

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# Of each tile, its pixels as the page shows them.
_PIXELS = """() => [...document.querySelectorAll("#sheet canvas")].map((canvas) => {
  const {width, height} = canvas;
  const {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
  return [height, width, Array.from(data)];
})"""


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser; the test is skipped where it or Playwright is not installed."""
    driver = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("there is no Chromium here, as Debian's package chromium brings it")
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visited(
    browser: Any, url: str, *, refused: bool = False, script: str = "", **context: Any
) -> Iterator[Any]:
    """A page that asks nobody else, and whose console tells of no fault.

    url: of a server, or of a file, which asks nobody at all. refused: but for what is refused.
    script: runs first. context: of the browser's.
    """
    faults: list[str] = []
    opened = browser.new_context(**context)
    opened.add_init_script(script)
    page = opened.new_page()
    is_file = url.startswith("file:")
    origin = url.partition("#")[0] if is_file else "/".join([*url.split("/")[:3], ""])

    def note(message: Any) -> None:
        is_refusal = "the server responded with a status of 4" in message.text
        if message.type == "error" and not (refused and is_refusal):
            faults.append(message.text)

    def check(request: Any) -> None:
        if not request.url.startswith((origin, "blob:", "data:")):
            faults.append(f"asks {request.url}")

    page.on("console", note)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", check)
    try:
        page.goto(url)
        yield page
        assert not faults, faults
    finally:
        opened.close()


def shown(page: Any) -> Images:
    """The pixels of all tiles, uint8 (N, H, W, 4), once the page is still."""
    page.locator(".frame[aria-busy=false]").wait_for()
    found = [np.array(data, np.uint8).reshape(h, w, 4) for h, w, data in page.evaluate(_PIXELS)]
    return np.stack(found)


def rgba(images: Images) -> Images:
    """What a canvas holds of images (N, H, W, C) with C of 1, 3 or 4."""
    n, height, width, channels = images.shape
    if channels == 4:
        return images
    alpha = np.full((n, height, width, 1), 255, np.uint8)
    return np.concatenate([np.broadcast_to(images, (n, height, width, 3)), alpha], axis=3)


def press(page: Any, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def choose(page: Any, name: str, value: str) -> None:
    page.get_by_label(name, exact=True).select_option(value)


def write(page: Any, name: str, value: object) -> None:
    page.get_by_label(name, exact=True).fill(str(value))


def view(page: Any, name: str) -> None:
    page.get_by_role("radio", name=name, exact=True).check()


def same(page: Any, images: Images) -> bool:
    return np.array_equal(shown(page), rgba(images))
