from html.parser import HTMLParser
from pathlib import Path

import onnx
import pytest

from ganexport.graph.drawing import Block, block_name, blocks_of, draw_bundle, short
from ganexport.graph.precision import convert
from ganexport.subjects.subject import of_run
from ganinfer.bundle.archive import Bundle
from gantrain.game.config import Config
from gantrain.runs.checkpoint import load_generator
from gantrain.training.summary import summarize


@pytest.fixture(scope="module")
def blocks(bundle: Path) -> list[Block]:
    with Bundle(bundle) as opened:
        single = opened.read_graph("fp32")
    half = convert(single, "fp16", keep=["ups.0"])
    return blocks_of({"fp32": onnx.load_from_string(single), "fp16": onnx.load_from_string(half)})


def test_macs_are_those_that_torch_counts(blocks: list[Block], recipe: Config) -> None:
    assert sum(block.macs for block in blocks) == summarize(recipe)[0].macs


def test_parameters_are_those_of_the_layers(blocks: list[Block], run: Path) -> None:
    twin = of_run(load_generator(run)).twin()
    counts = {block.name: block.num_parameters for block in blocks}
    for name in ("project", "ups.0", "to_image"):
        assert counts[name] == sum(p.numel() for p in twin.get_submodule(name).parameters())


def test_blocks_stand_in_the_order_of_the_graph_and_say_what_they_take(
    blocks: list[Block],
) -> None:
    assert [block.name for block in blocks] == [
        "input",
        "project",
        "norms.0",
        "ups.0",
        "norms.1",
        "to_image",
    ]
    takes = {block.name: set(block.takes) for block in blocks}
    assert takes["input"] == {"z"}
    assert takes["norms.1"] == {"y", "ups.0"}


def test_a_layer_has_its_operators_its_shape_and_its_precisions(blocks: list[Block]) -> None:
    layers = {layer.name: layer for block in blocks for layer in block.layers}
    last = layers["to_image"]
    assert last.operators[:2] == ["ConvTranspose", "Tanh"]
    assert last.shape == (16, 16, 3)
    assert last.precisions == {"fp32": "fp32", "fp16": "fp16"}
    assert layers["ups.0"].precisions["fp16"] == "fp32"  # kept


@pytest.mark.parametrize(
    ("layer", "block"),
    [("blocks.0.norm1.scale", "blocks.0"), ("synthesis.b8.conv0", "synthesis.b8"), ("a.b", "a")],
)
def test_a_block_is_a_numbered_part(layer: str, block: str) -> None:
    assert block_name(layer) == block


def test_counts_are_short() -> None:
    assert [short(n) for n in (0, 999, 1234, 5_742_596, 1_200_000_000)] == [
        "0",
        "999",
        "1.23 k",
        "5.74 M",
        "1.2 G",
    ]


class Links(HTMLParser):
    found: list[str]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag != "script"
        self.found += [key for key, _ in attrs if key in ("src", "href")]


def test_the_page_needs_nothing_else(bundle: Path, tmp_path: Path) -> None:
    draw_bundle(bundle, tmp_path / "sub" / "graph.html")
    text = (tmp_path / "sub" / "graph.html").read_text()
    links = Links()
    links.found = []
    links.feed(text)
    assert not links.found
    for words in ("MACs per image", "float32 (N, 16)", "uint8 (N, 16, 16, 3)", "<h2>ups.0</h2>"):
        assert words in text
