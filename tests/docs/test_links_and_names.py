"""Links lead somewhere; files, modules and names that a page speaks of exist."""

import ast
import importlib
import re
from pathlib import Path

import pytest
from pages import ALL_PAGES, PAGES, ROOT, Block, anchors, blocks, code_spans, links, name_of

README = ROOT / "README.md"
DOCS = ROOT / "docs"
PACKAGES = ("ganinfer", "gantrain", "ganexport")
PROGRAMS = [block for page in PAGES for block in blocks(page) if block.language == "python"]


@pytest.mark.parametrize("page", ALL_PAGES, ids=name_of)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), f"{name_of(page)}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{name_of(page)}: {link}"


def test_the_readme_is_read_in_two_minutes() -> None:
    assert len(README.read_text().splitlines()) <= 170


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=name_of)
def test_a_page_is_known_to_the_readme_and_begins_with_a_block(page: Path) -> None:
    assert f"docs/{page.name}" in links(README)
    first = next((block for block in blocks(page)), None)
    assert first is not None
    assert first.language in ("sh", "python")
    assert first.not_run is None
    text = page.read_text()
    assert "\n## " not in text[: text.index("```")]


@pytest.mark.parametrize("page", [p for p in ALL_PAGES if p.name != "CHANGELOG.md"], ids=name_of)
def test_files_and_modules_in_code_spans_exist(page: Path) -> None:
    """Except `mine.py` and the like, which a reader writes."""
    for span in code_spans(page):
        if re.fullmatch(r"(gan\w+|tests|benchmarks|configs|docs)/[\w./*-]*", span):
            if not Path(span).name.startswith("mine"):
                assert list(ROOT.glob(span.rstrip("/"))), f"{name_of(page)}: {span}"
        elif re.fullmatch(rf"({'|'.join(PACKAGES)})(\.\w+)+(\(.*\))?", span):
            assert resolves(span.partition("(")[0]), f"{name_of(page)}: {span}"


def resolves(dotted: str) -> bool:
    """Is it a module, or something in one?"""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:]:
            if not hasattr(found, name):
                return False
            found = getattr(found, name)
        return True
    return False


@pytest.mark.parametrize("block", PROGRAMS, ids=lambda block: block.where)
def test_names_that_a_program_imports_exist(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
            for alias in node.names:
                assert resolves(f"{node.module}.{alias.name}"), f"{block.where}: {alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in PACKAGES:
                    assert resolves(alias.name), f"{block.where}: {alias.name}"
