import re

import pytest

from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.card import is_untouched, model_card
from ganinfer.bundle.manifest import Manifest


@pytest.fixture(scope="module")
def manifest(bundle) -> Manifest:
    with Bundle(bundle) as opened:
        return opened.manifest


def with_model(manifest: Manifest, **changes: object) -> Manifest:
    return manifest.model_copy(update={"model": manifest.model.model_copy(update=changes)})


def test_a_card_says_what_the_generator_is(manifest: Manifest) -> None:
    card = model_card(manifest, "hf://owner/shapes").decode()
    for line in (
        "library_name: ganpipe",
        'tags: ["gan", "image-generation", "onnx", "dcgan"]',
        "# owner/shapes",
        "with Sampler('hf://owner/shapes') as sampler:",
        "| images | 16x16x3 (height, width, channels), uint8 |",
        "| classes | 3: 0, 1, 2 |",
        "| verified | yes |",
    ):
        assert line in card.splitlines()
    assert len(re.findall(r"\| pass \|", card)) == len(manifest.parity)


def test_its_three_lines_are_python(manifest: Manifest) -> None:
    card = model_card(manifest, "hf://owner/it's@here").decode()
    code = card.partition("```python\n")[2].partition("```")[0]
    compile(code, "README.md", "exec")


def test_names_are_data(manifest: Manifest) -> None:
    hostile = with_model(manifest, family='x"]\nlicense: mit', classes=["a|b\nc", "<b>", "[x](y)"])
    card = model_card(hostile, "hf://owner/x").decode()
    assert r"| classes | 3: a\|b c, \<b>, \[x\](y) |" in card.splitlines()
    assert "license: mit" not in card.splitlines()
    assert 'tags: ["gan", "image-generation", "onnx", "x\\"]\\nlicense: mit"]' in card


def test_a_thousand_classes_are_not_all_named(manifest: Manifest) -> None:
    many = with_model(manifest, classes=[f"n{number}" for number in range(1000)])
    assert "| classes | 1000: n0, n1," in model_card(many, "hf://owner/x").decode()
    assert b"n20" not in model_card(many, "hf://owner/x")


def test_what_was_not_verified_says_so(manifest: Manifest) -> None:
    unverified = manifest.model_copy(update={"verified": False, "parity": []})
    card = model_card(unverified, "hf://owner/x").decode()
    assert "| verified | no: exported without its parity gates |" in card
    assert "## Parity" not in card


def test_any_edit_of_a_card_is_noticed(manifest: Manifest) -> None:
    card = model_card(manifest, "hf://owner/x")
    assert is_untouched(card)
    for edited in (card + b"Mine.\n", b"Mine.\n" + card, card.replace(b"dcgan", b"DCGAN"), b""):
        assert not is_untouched(edited)
