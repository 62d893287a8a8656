"""What pages list and count is what the sources hold."""

import ast
import functools
import json
import re
import tomllib

import pytest
from pages import PAGES, ROOT, blocks, code_spans, prose

import ganinfer.errors
from ganexport.proof.parity import MAX_PAIR
from ganexport.proof.rounding import (
    LEAST_PSNR_DB,
    MOST_TIMES,
    MOST_TIMES_LARGEST,
    WORST_IMAGE_DB,
)
from ganinfer.bundle.manifest import Manifest
from ganinfer.lookup import module_names
from ganinfer.prometheus import _COUNTERS, _GAUGES, _HISTOGRAMS
from ganinfer.scheduler.stats import Stats
from gantrain.game.config import TrainConfig, parse_config
from gantrain.game.recipes import shipped_recipes

README = ROOT / "README.md"
DOCS = ROOT / "docs"
PACKAGES = ("ganinfer", "gantrain", "ganexport")


@pytest.mark.parametrize(
    ("page", "package"),
    [
        ("training.md", "gantrain.models"),
        ("training.md", "gantrain.objectives"),
        ("training.md", "gantrain.regularizers"),
        ("training.md", "gantrain.trackers"),
        ("exporting.md", "ganexport.importers"),
        ("sampling.md", "ganinfer.backends"),
        ("../gantrain/metrics/README.md", "gantrain.metrics"),
    ],
)
def test_every_part_has_its_place_in_the_docs(page: str, package: str) -> None:
    assert set(module_names(package)) <= set(code_spans(DOCS / page))


def test_every_recipe_and_key_of_training_has_its_place_in_the_docs() -> None:
    assert set(shipped_recipes()) <= set(code_spans(DOCS / "training.md"))
    assert set(TrainConfig.model_fields) <= set(code_spans(DOCS / "training.md"))


def test_the_readme_counts_right() -> None:
    counts = {
        f"{len(shipped_recipes())} recipes",
        f"{len(module_names('gantrain.models'))} models",
        f"{len(module_names('gantrain.objectives'))} objectives",
        f"{len(module_names('gantrain.regularizers'))} regularizers",
        f"| metrics | {len(module_names('gantrain.metrics'))},",
    }
    assert {count for count in counts if count not in README.read_text()} == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_suite_is_drawn_in_the_architecture(package: str) -> None:
    suites = {
        f"{package}/{path.name}{'/' * path.is_dir()}"
        for path in (ROOT / package).iterdir()
        if path.name[0] not in "_." and (path.is_dir() or path.suffix == ".py")
    }
    assert len(suites) > 5
    assert suites - set(code_spans(DOCS / "architecture.md")) == set()


def test_functions_named_beside_their_file_are_in_it() -> None:
    text = (DOCS / "architecture.md").read_text()
    named = re.findall(r"`([\w/]+\.py)`: `([\w.]+)`", text)
    for file, name in named:
        own = {
            node.name
            for node in ast.walk(ast.parse((ROOT / file).read_text()))
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
        }
        assert set(name.split(".")) <= own, f"{file}: {name}"
    assert len(named) >= 10


def test_the_numbers_of_the_gates_are_those_of_the_proof() -> None:
    table = (DOCS / "exporting.md").read_text()
    rows = {row[0].split(",")[0]: row[1:] for row in map(cells, table.splitlines()) if row}

    def numbers(name: str) -> list[float]:
        found = (re.search(r"[\d.]+", cell) for cell in rows[name])
        return [float(number.group()) for number in found if number]

    assert numbers("error on [-1") == list(MOST_TIMES.values())
    assert numbers("largest error on [-1") == [MOST_TIMES_LARGEST]
    assert numbers("PSNR on [-1") == list(LEAST_PSNR_DB.values())
    assert numbers("PSNR of the worst image") == [
        least - WORST_IMAGE_DB for least in LEAST_PSNR_DB.values()
    ]
    assert numbers("the farthest two images of one seed") == [MAX_PAIR]


def test_every_statistic_and_its_metric_have_their_row_in_the_docs() -> None:
    table = map(cells, (DOCS / "sampling.md").read_text().splitlines())
    rows = {row[0]: row[1] for row in table if row and row[1].startswith("`ganinfer_")}
    metrics = {f"`{key}`": f"`ganinfer_{name}_total`" for key, name, _ in _COUNTERS}
    metrics |= {f"`{key}`": f"`ganinfer_{name}`" for key, name, _ in (*_GAUGES, *_HISTOGRAMS)}
    assert rows == metrics
    assert set(Stats().read()) <= set(code_spans(DOCS / "sampling.md"))


def cells(line: str) -> list[str]:
    """Of a row of a table."""
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_every_error_is_explained_under_its_name() -> None:
    errors = [
        name
        for name, thing in vars(ganinfer.errors).items()
        if isinstance(thing, type) and issubclass(thing, ganinfer.errors.GanError)
    ]
    headings = re.findall(r"^## (.+)$", prose(DOCS / "troubleshooting.md"), re.MULTILINE)
    explained = {name for heading in headings for name in heading.split(", ")}
    assert sorted(set(errors) - explained) == []


def test_the_table_of_exit_codes_is_that_of_the_sources() -> None:
    table = [cells(line) for line in (DOCS / "troubleshooting.md").read_text().splitlines()]
    told = {row[1].upper(): int(row[0]) for row in table if len(row) == 3 and row[0].isdecimal()}
    assert told == {ending.name: ending.value for ending in ganinfer.errors.Ending}


@functools.cache
def calls_of_sources() -> list[ast.Call]:
    """Every call of something by its name, with an argument."""
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text())))
    return [n for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.args]


def messages(error: str) -> list[re.Pattern[str]]:
    """What the sources give an error to say, with room for what differs from time to time."""
    found = []
    for call in calls_of_sources():
        parts = getattr(call.args[0], "values", [call.args[0]])
        texts = [part.value if isinstance(part, ast.Constant) else None for part in parts]
        if call.func.id == error and sum(len(str(text)) for text in texts if text) >= 15:
            words = (".+" if text is None else re.escape(str(text)) for text in texts)
            found.append(re.compile("".join(words)))
    return found


def test_messages_of_the_troubleshooting_page_are_those_of_the_sources() -> None:
    sections = re.split(r"^## ", (DOCS / "troubleshooting.md").read_text(), flags=re.MULTILINE)[1:]
    shown = 0
    for section in sections:
        for message in re.findall(r"^```text\n(.+?)\n```$", section, re.MULTILINE | re.DOTALL):
            errors = section.partition("\n")[0].split(", ")
            known = [pattern for error in errors for pattern in messages(error)]
            assert any(m.fullmatch(message) for m in known), f"{errors}: {message}"
            shown += 1
    assert shown >= 12


def test_the_versions_that_were_tried_are_those_of_the_constraints() -> None:
    pinned = dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "constraints.txt").read_text(), re.M))
    rows = re.findall(
        r"^\| ([\w-]+) \| [^|]+ \| (\d[\w.]+)", (DOCS / "compatibility.md").read_text(), re.M
    )
    assert dict(rows) == {name: pinned[name] for name, _ in rows}
    assert len(rows) >= 5


def test_recipes_in_the_docs_are_valid() -> None:
    recipes = [b for page in PAGES for b in blocks(page) if b.language == "toml"]
    assert recipes
    for block in recipes:
        tree = tomllib.loads(block.text)
        if "data" in tree and block.not_run is None:
            parse_config(tree, where=block.where)


def test_the_schema_of_the_manifest_is_that_of_the_sources() -> None:
    found = json.loads((DOCS / "manifest.schema.json").read_text())
    assert found.pop("$schema").endswith("2020-12/schema")
    assert found == Manifest.model_json_schema()
