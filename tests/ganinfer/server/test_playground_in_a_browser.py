"""The page in a real browser: what it shows is what `Sampler` draws, pixel by pixel."""

import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ganinfer import Sampler

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from browsing import choose, chromium, press, rgba, same, shown, view, visited, write
from conftest import rewrite_manifest
from hosting import Host, hosted, pixels
from test_shapes import Z_DIM, disc

from ganexport.options import ExportOptions
from ganexport.pipeline import Exported, export
from ganexport.subjects.spec import Spec
from ganinfer.server import Serving

pytestmark = pytest.mark.slow

LAST = 2**64 - 1
SHAPES = {
    "oblong": (24, 40, 3),
    "clear": (31, 17, 4),
    "grey": (20, 20, 1),
    "planes": (17, 31, 2),
    "large": (130, 140, 3),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def samplers(
    bundle: Path, mixable: Path, styled: Exported, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Sampler]]:
    places = {"tiny": bundle, "mixable": mixable, "styled": styled.path}
    folder = tmp_path_factory.mktemp("shapes")
    options = ExportOptions(num_images=1000, precisions=["fp32"])
    for name, shape in SHAPES.items():
        places[name] = export(disc(shape), Spec(z_dim=Z_DIM), folder / name, options).path
    opened = {name: Sampler(place, device="cpu", batch_size=8) for name, place in places.items()}
    yield opened
    for sampler in opened.values():
        sampler.close()


@pytest.fixture(scope="module")
def host(samplers: dict[str, Sampler]) -> Iterator[Host]:
    with hosted(samplers) as started:
        yield started


@pytest.fixture
def page(browser: Any, host: Host) -> Iterator[Any]:
    with visited(browser, host.url, permissions=["clipboard-read", "clipboard-write"]) as opened:
        yield opened


@pytest.fixture
def tiny(samplers: dict[str, Sampler]) -> Sampler:
    return samplers["tiny"]


# What the controls do.


def test_it_opens_with_a_grid(page: Any, tiny: Sampler) -> None:
    assert same(page, tiny.sample(36))
    assert "Seeds 0 to 35" in page.locator("figcaption").inner_text()
    assert re.search(r"36 images in \d+ ms", page.locator("figcaption").inner_text())


def test_seeds_are_chosen(page: Any, tiny: Sampler) -> None:
    choose(page, "Images", "4")
    write(page, "Seed", 7)
    assert same(page, tiny.sample(4, seed=7))
    press(page, "Next")
    assert same(page, tiny.sample(4, seed=11))
    for _ in range(3):
        press(page, "Previous")
    assert same(page, tiny.sample(4, seed=0))  # and no further
    press(page, "Random")
    seed = int(page.get_by_label("Seed", exact=True).input_value())
    assert same(page, tiny.sample(4, seed=seed))
    choose(page, "Images", "1")
    write(page, "Seed", LAST)
    assert same(page, tiny.sample(seeds=[LAST]))
    press(page, "Next")
    assert same(page, tiny.sample(seeds=[LAST]))
    assert f"Seed {LAST}" in page.locator("figcaption").inner_text()


def test_classes_and_truncations_are_chosen(page: Any, tiny: Sampler) -> None:
    choose(page, "Images", "9")
    choose(page, "Class", "2")
    assert same(page, tiny.sample(9, labels=2))
    write(page, "Truncation", "0.73")
    assert same(page, tiny.sample(9, labels=2, truncation=0.73))
    page.get_by_label("Truncation, slider").fill("0.5")
    assert same(page, tiny.sample(9, labels=2, truncation=0.5))
    choose(page, "Way of truncating", "scale")
    assert same(page, tiny.sample(9, labels=2, truncation=0.5, truncation_mode="scale"))
    press(page, "Leave out")
    choose(page, "Class", "")
    assert same(page, tiny.sample(9))


def test_a_tile_opens_alone_and_back_goes_back(page: Any, tiny: Sampler) -> None:
    shown(page)
    press(page, "Seed 9: show it alone")
    assert same(page, tiny.sample(1, seed=9))
    page.go_back()
    assert same(page, tiny.sample(36))


def test_a_way_leads_from_seed_to_seed(page: Any, tiny: Sampler) -> None:
    view(page, "Between two")
    assert same(page, tiny.interpolate(0, 1, [0.5]))
    write(page, "Seed", 7)
    write(page, "To seed", LAST)
    choose(page, "Class", "1")
    write(page, "Place on the way, 0 to 1", "0.123")
    assert same(page, tiny.interpolate(7, LAST, [0.123], label=1))
    page.get_by_label("Place on the way, 0 to 1").press_sequentially("e")  # no number yet
    assert not page.get_by_role("alert").is_visible()
    write(page, "Place on the way, 0 to 1", "0.2")
    write(page, "Truncation", "0.6")
    page.get_by_label("Place on the way, slider").fill("0.35")
    assert same(page, tiny.interpolate(7, LAST, [0.35], label=1, truncation=0.6))
    press(page, "Random seed to go to")
    to = int(page.get_by_label("To seed", exact=True).input_value())
    assert same(page, tiny.interpolate(7, to, [0.35], label=1, truncation=0.6))


def test_of_a_fast_slider_the_newest_wins(page: Any, tiny: Sampler) -> None:
    view(page, "Between two")
    shown(page)
    given_up: list[str] = []
    page.on("requestfailed", lambda request: given_up.append(request.failure))
    page.get_by_label("Place on the way, slider").evaluate(
        """slider => { for (let i = 100; i >= 13; i--) {
          slider.value = i / 100;
          slider.dispatchEvent(new Event("input", {bubbles: true}));
        } }"""
    )
    assert same(page, tiny.interpolate(0, 1, [0.13]))
    assert len(given_up) > 50


def test_truncations_are_rows(page: Any, tiny: Sampler) -> None:
    view(page, "Truncations")
    write(page, "Seed", 3)
    values = (0.2, 0.4, 0.6, 0.8, 1.0)
    rows = [tiny.sample(5, seed=3, truncation=value) for value in values]
    assert same(page, np.concatenate(rows))
    press(page, "Seed 5, truncation 0.4: show it alone")
    assert same(page, rows[1][2:3])


def test_classes_are_mixed_where_the_bundle_takes_it(
    page: Any, samplers: dict[str, Sampler]
) -> None:
    choose(page, "Model", "mixable")
    shown(page)
    choose(page, "Images", "4")
    choose(page, "Class", "0")
    choose(page, "Mixed with", "2")
    write(page, "Share of the second class, 0 to 1", "0.3")
    assert same(page, samplers["mixable"].sample(4, labels={0: 0.7, 2: 0.3}))
    choose(page, "Class", "")
    assert same(page, samplers["mixable"].sample(4))


def test_a_stylegan_has_psi_and_two_spaces(page: Any, samplers: dict[str, Sampler]) -> None:
    sampler = samplers["styled"]
    choose(page, "Model", "styled")
    assert same(page, sampler.sample(36))
    assert (
        page.get_by_label("Way of truncating").count() == 0
        or not page.get_by_label("Way of truncating").is_visible()
    )
    view(page, "Between two")
    choose(page, "Space of the way", "w")
    choose(page, "Class", "fox")
    write(page, "Truncation", "0.7")
    expected = sampler.interpolate(0, 1, [0.5], space="w", label="fox", truncation=0.7)
    assert same(page, expected)


@pytest.mark.parametrize("name", SHAPES)
def test_images_of_any_shape_are_right(page: Any, samplers: dict[str, Sampler], name: str) -> None:
    choose(page, "Model", name)
    images = samplers[name].sample(16 if name == "large" else 36)
    if name == "planes":  # side by side
        images = np.concatenate([images[..., :1], images[..., 1:]], axis=2)
    found = shown(page)
    assert found.shape[:3] == images.shape[:3]
    if name == "clear":  # a canvas holds colours times opacity
        assert np.array_equal(found[..., 3], images[..., 3])
        products = [pictures[..., :3] * (pictures[..., 3:] / 255) for pictures in (found, images)]
        assert np.abs(products[0] - products[1]).max() < 1
    else:
        assert np.array_equal(found, rgba(images))
    tile = page.locator("#sheet canvas").first
    box = tile.bounding_box()
    assert box["width"] / box["height"] == pytest.approx(images.shape[2] / images.shape[1], 0.05)
    sheet, frame = (page.locator(part).bounding_box() for part in ("#sheet", ".frame"))
    assert sheet["height"] <= frame["height"] - 2 * 14  # its padding
    rendering = tile.evaluate("tile => getComputedStyle(tile).imageRendering")
    assert rendering == ("auto" if name == "large" else "pixelated")


# What is done with a picture.


def test_a_link_gives_the_same_pixels_again(page: Any, browser: Any, host: Host) -> None:
    choose(page, "Images", "4")
    write(page, "Seed", LAST - 3)
    choose(page, "Class", "1")
    write(page, "Truncation", "0.73")
    before = shown(page)
    press(page, "Copy link")
    page.get_by_text("Link copied").wait_for()
    link = page.evaluate("navigator.clipboard.readText()")
    assert f"bundle={host.get('/v1/tiny').json['bundle'][:12]}" in link
    with visited(browser, link) as other:
        assert np.array_equal(shown(other), before)
        other.reload()
        assert np.array_equal(shown(other), before)
    page.wait_for_url(link)


def test_a_link_to_another_bundle_says_so_and_leads_on(
    browser: Any, host: Host, tiny: Sampler
) -> None:
    link = f"{host.url}/#model=tiny&view=seeds&seed=5&n=4&bundle=000000000000"
    with visited(browser, link, refused=True) as page:
        told = page.get_by_role("alert")
        told.wait_for()
        assert "bundle 000000000000: another one serves" in told.inner_text()
        press(page, "Use the one that is here")
        told.wait_for(state="hidden")
        assert same(page, tiny.sample(4, seed=5))


def test_a_bundle_that_takes_over_is_told(browser: Any, copied: Path) -> None:
    with (
        Sampler(copied, device="cpu", batch_size=2) as sampler,
        hosted({"tiny": sampler}) as host,
        visited(browser, f"{host.url}/#n=4", refused=True) as page,
    ):
        shown(page)
        rewrite_manifest(copied, lambda manifest: manifest["model"].update(family="other"))
        assert sampler.reload()
        press(page, "Next")
        page.get_by_text(f"another one serves, {sampler.sha256[:12]}").wait_for()
        press(page, "Use the one that is here")
        page.get_by_role("alert").wait_for(state="hidden")
        assert same(page, sampler.sample(4, seed=4))


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ("#model=other", "this serves"),
        ("#seed=many&n=1", "seed: found 'many'"),
        ("#seed=18446744073709551615&n=4", "seeds lie in 0 to 2**64 - 1"),
        ("#label=cat&n=1", "there is no such class"),
        ("#truncation=-1&n=1", "truncation"),
    ],
)
def test_what_the_server_refuses_is_told_in_its_words(
    browser: Any, host: Host, link: str, words: str
) -> None:
    with visited(browser, f"{host.url}/{link}", refused=True) as page:
        page.get_by_role("alert").get_by_text(words).wait_for()
        assert not page.locator("#keep").is_visible()  # there is nothing to be kept


def test_favourites_stay(page: Any, tiny: Sampler) -> None:
    choose(page, "Images", "1")
    write(page, "Seed", 42)
    before = shown(page)
    press(page, "Keep")
    press(page, "Random")
    assert not np.array_equal(shown(page), before)
    page.reload()
    page.get_by_role("button", name="Show tiny: Seed 42").click()
    page.get_by_text("Seed 42", exact=True).wait_for()
    assert np.array_equal(shown(page), before)
    press(page, "Drop tiny: Seed 42")
    page.reload()
    shown(page)
    assert page.get_by_role("button", name="Show tiny: Seed 42").count() == 0


def downloaded(page: Any, name: str) -> bytes:
    with page.expect_download() as waited:
        press(page, name)
    return Path(waited.value.path()).read_bytes()


def test_pictures_and_films_are_downloaded(page: Any, host: Host, tiny: Sampler) -> None:
    shown(page)
    assert downloaded(page, "Download PNG") == host.get("/v1/tiny/grid.png?n=36").body
    view(page, "Truncations")
    rows = shown(page)
    sheet = pixels(downloaded(page, "Download PNG"))
    tiles = sheet.reshape(5, 16, 5, 16, -1).transpose(0, 2, 1, 3, 4).reshape(25, 16, 16, -1)
    assert np.array_equal(tiles[..., :3], rows[..., :3])
    view(page, "Between two")
    one = tiny.interpolate(0, 1, [0.5])[0]
    shown(page)
    assert np.array_equal(pixels(downloaded(page, "Download PNG")), one)
    for name in ("GIF", "WebP"):
        film = downloaded(page, f"Download the way as {name}")
        path = f"/v1/tiny/interpolate.{name.lower()}?seed=0&to=1&frames=60&fps=30"
        assert film == host.get(path).body
        assert Image.open(io.BytesIO(film)).n_frames > 1


def code_of(page: Any, client: str) -> str:
    page.get_by_role("radio", name=client, exact=True).check()
    press(page, "Copy code")
    page.get_by_text("Code copied").wait_for()
    return page.evaluate("navigator.clipboard.readText()")


def run_code(code: str) -> SimpleNamespace:
    names: dict[str, Any] = {}
    exec(compile(code, "snippet", "exec"), names)
    return SimpleNamespace(**names)


def run_curl(code: str, folder: Path, *files: str) -> list[np.ndarray]:
    subprocess.run(["bash", "-euc", code], cwd=folder, check=True, capture_output=True)
    return [pixels((folder / file).read_bytes()) for file in files]


def test_the_code_draws_what_is_shown(
    page: Any, host: Host, tiny: Sampler, bundle: Path, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    pytest.importorskip("tritonclient.http")
    pytest.importorskip("openai")
    monkeypatch.chdir(bundle.parent)
    choose(page, "Images", "4")
    write(page, "Seed", LAST - 3)
    choose(page, "Class", "1")
    expected = tiny.sample(4, seed=LAST - 3, labels=1)
    assert same(page, expected)
    answer = run_code(code_of(page, "openai")).answer
    assert answer.data[-1].seed == str(LAST)
    files = [image.b64_json for image in answer.data]
    assert np.array_equal(decoded(files), expected)
    write(page, "Truncation", "0.73")
    choose(page, "Way of truncating", "scale")
    expected = tiny.sample(4, seed=LAST - 3, labels=1, truncation=0.73, truncation_mode="scale")
    assert same(page, expected)
    for client in ("Python", "tritonclient"):
        assert np.array_equal(run_code(code_of(page, client)).images, expected)
    (sheet,) = run_curl(code_of(page, "curl"), tmp_path, "tiny.png")
    path = f"/v1/tiny/grid.png?seed={LAST - 3}&n=4&label=1&truncation=0.73&truncation_mode=scale"
    assert np.array_equal(sheet, pixels(host.get(path).body))


def decoded(files: list[str]) -> np.ndarray:
    import base64

    return np.stack([pixels(base64.b64decode(file)) for file in files])


def test_the_code_of_ways_and_rows(
    page: Any, tiny: Sampler, bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(bundle.parent)
    view(page, "Between two")
    assert same(page, tiny.interpolate(0, 1, [0.5]))
    assert np.array_equal(run_code(code_of(page, "Python")).images, tiny.interpolate(0, 1, [0.5]))
    (one, _) = run_curl(code_of(page, "curl"), tmp_path, "tiny.png", "tiny.gif")
    assert np.array_equal(one, tiny.interpolate(0, 1, [0.5])[0])
    for client in ("tritonclient", "openai"):
        assert code_of(page, client).startswith("# ")
    view(page, "Truncations")
    rows = shown(page)
    assert np.array_equal(rgba(np.concatenate(run_code(code_of(page, "Python")).rows)), rows)
    run_curl(code_of(page, "curl"), tmp_path, *(f"tiny-{v}.png" for v in (0.2, 0.4, 0.6, 0.8, 1)))


def test_the_code_of_mixtures(
    page: Any, samplers: dict[str, Sampler], mixable: Path, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    shutil.copytree(mixable, tmp_path / "mixable.gan")
    monkeypatch.chdir(tmp_path)
    choose(page, "Model", "mixable")
    shown(page)
    choose(page, "Images", "4")
    choose(page, "Class", "0")
    choose(page, "Mixed with", "2")
    assert same(page, samplers["mixable"].sample(4, labels={0: 0.5, 2: 0.5}))
    assert np.array_equal(rgba(run_code(code_of(page, "Python")).images), shown(page))


# Keys.


def test_a_server_with_keys_asks_for_one(browser: Any, tiny: Sampler, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("secret\n")
    with (
        hosted({"tiny": tiny}, Serving(api_keys=tmp_path / "keys")) as host,
        visited(browser, f"{host.url}/#model=tiny&seed=5&n=4", refused=True) as page,
    ):
        field = page.get_by_label("This server asks for an API key.")
        field.fill("wrong")
        field.press("Enter")
        page.get_by_text("expected Authorization").wait_for()
        field.fill("secret")
        press(page, "Use it")
        field.wait_for(state="hidden")
        assert same(page, tiny.sample(4, seed=5))
        page.reload()
        assert same(page, tiny.sample(4, seed=5))
        assert "secret" not in page.url + page.locator("#code").inner_text()
        assert '-H "x-api-key: $GAN_API_KEY"' in page.locator("#code").inner_text()
        assert page.evaluate("JSON.stringify(localStorage)") == "{}"


# Whom it must fit.


def focused(page: Any) -> str:
    return page.evaluate(
        "(document.activeElement.id || document.activeElement.name"
        " || document.activeElement.ariaLabel || document.activeElement.tagName)"
    )


def tab_to(page: Any, name: str) -> None:
    for _ in range(80):
        if focused(page) == name:
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not come to {name}")


def test_the_keyboard_is_enough(page: Any, tiny: Sampler) -> None:
    shown(page)
    tab_to(page, "view")
    page.keyboard.press("ArrowRight")
    assert same(page, tiny.interpolate(0, 1, [0.5]))
    tab_to(page, "Place on the way, slider")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert same(page, tiny.interpolate(0, 1, [0.53]))
    tab_to(page, "seed")
    page.keyboard.press("Control+A")
    page.keyboard.type("77")
    assert same(page, tiny.interpolate(77, 1, [0.53]))
    tab_to(page, "next")
    page.keyboard.press("Enter")
    assert same(page, tiny.interpolate(78, 1, [0.53]))
    tab_to(page, "label")
    page.keyboard.press("ArrowDown")
    assert same(page, tiny.interpolate(78, 1, [0.53], label=0))
    tab_to(page, "view")
    page.keyboard.press("ArrowLeft")
    assert same(page, tiny.sample(36, seed=78, labels=0))
    tab_to(page, "Seed 79: show it alone")
    page.keyboard.press("Space")
    assert same(page, tiny.sample(1, seed=79, labels=0))
    tab_to(page, "keep")
    page.keyboard.press("Enter")
    page.get_by_text("Kept", exact=True).first.wait_for()
    for name in ("link", "png", "previous", "random", "n", "truncation", "copy", "client", "code"):
        tab_to(page, name)


@pytest.mark.parametrize("name", ["Seeds", "Between two", "Truncations"])
def test_every_control_has_a_name(page: Any, name: str) -> None:
    view(page, name)
    shown(page)
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "combobox", "image", "radio", "slider", "spinbutton", "textbox", "alert"}
    found = [node for node in tree if not node["ignored"] and node["role"]["value"] in roles]
    nameless = [node["role"] for node in found if not node.get("name", {}).get("value")]
    assert len(found) > 20
    assert nameless == []


# Of each text that is seen, its beginning and its contrast, as WCAG 2 defines it.
CONTRASTS = """() => {
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) =>
    0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const ground = (element) => {
    const found = numbers(getComputedStyle(element).backgroundColor);
    return found[3] === undefined ? found : ground(element.parentElement);
  };
  const hasText = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  return [...document.querySelectorAll("body *:not(noscript, :disabled)")]
    .filter((e) => e.checkVisibility() && hasText(e))
    .map((e) => {
      const lights = [numbers(getComputedStyle(e).color), ground(e)].map(luminance);
      const ratio = (Math.max(...lights) + 0.05) / (Math.min(...lights) + 0.05);
      return [e.textContent.trim().slice(0, 40), ratio];
    });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_it_is_legible(browser: Any, host: Host, scheme: str, width: int) -> None:
    size = {"width": width, "height": 844}
    link = f"{host.url}/#bundle=000000000000"
    with visited(browser, link, refused=True, color_scheme=scheme, viewport=size) as page:
        page.get_by_role("alert").wait_for()
        press(page, "Use the one that is here")
        shown(page)
        press(page, "Keep")
        for name in ("Seeds", "Between two", "Truncations"):
            view(page, name)
            shown(page)
            contrasts = page.evaluate(CONTRASTS)
            assert len(contrasts) > 15
            assert [(text, ratio) for text, ratio in contrasts if ratio < 4.5] == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width


WATCH_JUMPS = """window.jumps = [];
new PerformanceObserver((list) =>
  jumps.push(...list.getEntries().filter((e) => !e.hadRecentInput).map((e) => e.value)))
  .observe({type: "layout-shift", buffered: true});"""


def test_nothing_jumps_while_it_loads(browser: Any, host: Host) -> None:
    with visited(browser, host.url, script=WATCH_JUMPS) as page:
        shown(page)
        assert sum(page.evaluate("jumps")) < 0.02
        boxes = set()
        for name in ("Seeds", "Between two", "Truncations"):
            view(page, name)
            shown(page)
            boxes.add(json.dumps(page.locator(".frame").bounding_box()))
        assert len(boxes) == 1
