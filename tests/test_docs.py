"""The pages hold what they promise: links lead somewhere, names exist, what is shown runs."""

import ast
import importlib
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
from pages import (
    ALL_PAGES,
    PAGES,
    ROOT,
    Block,
    anchors,
    begins_with,
    blocks,
    code_spans,
    gan_commands,
    links,
    name_of,
    prose,
)

import ganinfer.errors
from ganexport.cli.gan import app
from ganexport.pipeline import export_run, export_subject
from ganexport.subjects.subject import Spec, of_module
from ganinfer.lookup import module_names
from gantrain.data.prepare import prepare
from gantrain.game.config import load_config, parse_config, shipped_recipes
from gantrain.runs.checkpoint import load_generator
from gantrain.training.train import train

README = ROOT / "README.md"
DOCS = ROOT / "docs"
GAN: Any = typer.main.get_command(app)
PROGRAMS = [block for page in PAGES for block in blocks(page) if block.language == "python"]
SCRIPTS = [block for page in PAGES for block in blocks(page) if block.language == "sh"]
PACKAGES = ("ganinfer", "gantrain", "ganexport")

# Pages whose blocks take longer than 20 s together; `pytest -m slow` runs them.
SLOW = {"README.md", "docs/training.md", "docs/measuring.md", "docs/exporting.md"}

# What makes a long command short: options that are put behind those of the page.
SHORT = {
    "train": ["--set", "train.total_kimg=0.5"],
    "demo": ["--set", "train.total_kimg=0.5"],
    "evaluate": ["--num", "300"],
    "report": ["--num", "300"],
    "statistics": ["--num", "300"],
    "export": ["--num", "1000"],
    "verify": ["--num", "1000"],
    "bench": ["--seconds", "0.02"],
    "sample": ["--num", "200"],  # where there is one
}


# --- links, names and sizes ---


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


@pytest.mark.parametrize(
    ("page", "package"),
    [
        ("training.md", "gantrain.models"),
        ("training.md", "gantrain.objectives"),
        ("training.md", "gantrain.regularizers"),
        ("exporting.md", "ganexport.importers"),
        ("sampling.md", "ganinfer.backends"),
        ("../gantrain/metrics/README.md", "gantrain.metrics"),
    ],
)
def test_every_part_has_its_place_in_the_docs(page: str, package: str) -> None:
    assert set(module_names(package)) <= set(code_spans(DOCS / page))


def test_every_recipe_has_its_place_in_the_docs() -> None:
    assert set(shipped_recipes()) <= set(code_spans(DOCS / "training.md"))


def test_every_error_is_explained_under_its_name() -> None:
    errors = [
        name
        for name, thing in vars(ganinfer.errors).items()
        if isinstance(thing, type) and issubclass(thing, ganinfer.errors.GanError)
    ]
    headings = re.findall(r"^## (\w+Error|\w+)$", prose(DOCS / "troubleshooting.md"), re.MULTILINE)
    assert sorted(set(errors) - set(headings)) == []


def messages(error: str) -> list[re.Pattern[str]]:
    """What the sources give an error to say, with room for what differs from time to time."""
    found = []
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and getattr(node.func, "id", "") == error
                    and node.args
                ):
                    parts = getattr(node.args[0], "values", [node.args[0]])
                    texts = [p.value if isinstance(p, ast.Constant) else None for p in parts]
                    if sum(len(str(text)) for text in texts if text) >= 15:
                        words = (".+" if text is None else re.escape(str(text)) for text in texts)
                        found.append(re.compile("".join(words)))
    return found


def test_messages_of_the_troubleshooting_page_are_those_of_the_sources() -> None:
    sections = re.split(r"^## ", (DOCS / "troubleshooting.md").read_text(), flags=re.MULTILINE)[1:]
    shown = 0
    for section in sections:
        for message in re.findall(r"^```text\n(.+?)\n```$", section, re.MULTILINE | re.DOTALL):
            error = section.partition("\n")[0]
            assert any(m.fullmatch(message) for m in messages(error)), f"{error}: {message}"
            shown += 1
    assert shown >= 12


def test_the_versions_that_were_tried_are_those_of_the_constraints() -> None:
    pinned = dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "constraints.txt").read_text(), re.M))
    rows = re.findall(
        r"^\| ([\w-]+) \| [^|]+ \| (\d[\w.]+)", (DOCS / "compatibility.md").read_text(), re.M
    )
    assert dict(rows) == {name: pinned[name] for name, _ in rows}
    assert len(rows) >= 5


# --- blocks that are not run, and what else names a command ---


def flags_of(command: Any) -> set[str]:
    return {flag for p in command.params for flag in (*p.opts, *p.secondary_opts)} | {"--help"}


def problem_of(words: list[str]) -> str | None:
    """What the parser of `gan` says to a command line; values are not looked at."""
    while words and words[0] in flags_of(GAN):  # options of every command
        words = words[1:]
    if not words:
        return None
    name, *arguments = words
    if name not in GAN.commands:
        return f"there is no gan {name}"
    command = GAN.commands[name]
    if "--help" in arguments:
        return None
    try:
        parser = command.make_parser(command.context_class(command, info_name=name))
        _, left, _ = parser.parse_args(arguments)
    except Exception as error:
        # A click.UsageError; typer has a copy of click of its own, or not.
        if not hasattr(error, "format_message"):
            raise
        return str(error.format_message())
    return f"no place for {left}" if left else None


def test_the_parser_of_this_test_sees_mistakes() -> None:
    assert problem_of(["bnech", "x.gan"])
    assert problem_of(["bench", "x.gan", "--tuned"])
    assert problem_of(["bench", "x.gan", "y.gan"])
    assert problem_of(["bench", "x.gan", "--seconds"])
    assert problem_of(["bench", "x.gan", "--seconds", "1", "--tune"]) is None


@pytest.mark.parametrize("block", SCRIPTS, ids=lambda block: block.where)
def test_commands_and_options_of_a_block_exist(block: Block) -> None:
    for arguments in gan_commands(block.text):
        assert problem_of(arguments) is None, f"{block.where}: gan {' '.join(arguments)}"


@pytest.mark.parametrize("page", ALL_PAGES, ids=name_of)
def test_commands_and_options_in_code_spans_exist(page: Path) -> None:
    known = set().union(*map(flags_of, [GAN, *GAN.commands.values()]))
    for span in code_spans(page):
        if span.startswith("gan "):
            name, *rest = next(gan_commands(span))
            assert name in GAN.commands, f"{name_of(page)}: {span}"
            unknown = {word for word in rest if word[:2] == "--"} - flags_of(GAN.commands[name])
            assert not unknown, f"{name_of(page)}: {span}"
        elif re.match(r"--[a-z]", span):
            assert span.split()[0] in known, f"{name_of(page)}: {span}"


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


def test_recipes_in_the_docs_are_valid() -> None:
    recipes = [b for page in PAGES for b in blocks(page) if b.language == "toml"]
    assert recipes
    for block in recipes:
        tree = tomllib.loads(block.text)
        if "data" in tree and block.not_run is None:
            parse_config(tree, where=block.where)


# --- blocks that are run ---


@pytest.fixture(scope="session")
def road(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the README's road leaves behind, in small: data, a run and a bundle.

    The bundle is exported as a stranger's module, so that no classifier is trained for its gates.
    """
    folder = tmp_path_factory.mktemp("road")
    prepare("digits", folder / "data/digits", resolution=16)
    small = ["model.generator.width=8", "model.discriminator.width=8", "train.total_kimg=0.5"]
    place = f"data.path={folder / 'data/digits'}"
    recipe = load_config(Path("dcgan-digits"), [place, "train.device=cpu", *small])
    trained = load_generator(train(recipe, folder / "runs/dcgan-digits").run)
    subject = of_module(trained.network, Spec(trained.network.z_dim, trained.classes))
    export_subject(subject, folder / "digits.gan", precisions=["fp32"], num_images=1000)
    return folder


@pytest.fixture(scope="session")
def whole_road(road: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a bundle that was exported from the run."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(road, folder, dirs_exist_ok=True)
    export_run(folder / "runs/dcgan-digits", folder / "digits.gan", num_images=1000)
    return folder


@pytest.fixture(scope="session")
def shims(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a `gan` that makes long work short, and this `python`."""
    folder = tmp_path_factory.mktemp("bin")
    program = f"""#!{sys.executable}
import sys
short = {SHORT!r}.get(sys.argv[1], [])
if sys.argv[1] != "sample" or {{"-n", "--num"}} & set(sys.argv):
    sys.argv += short
from ganexport.cli.gan import main
main()
"""
    (folder / "gan").write_text(program)
    (folder / "gan").chmod(stat.S_IRWXU)
    (folder / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (folder / "python").chmod(stat.S_IRWXU)
    return folder


def run_page(page: Path, folder: Path) -> None:
    """Run a page's blocks in their order, as a reader types them: its programs are one session."""
    session: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.not_run is not None or block.language not in ("sh", "python"):
            continue
        if block.file_name is not None:
            (folder / block.file_name).write_text(block.text)
        elif block.language == "python":
            exec(compile(block.text, block.where, "exec"), session)
        else:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block.text],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=240,
            )
            assert done.returncode == 0, (
                f"{block.where}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
            )


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=name_of(page), marks=[pytest.mark.slow] * (name_of(page) in SLOW))
        for page in PAGES
        if any(b.not_run is None and b.language in ("sh", "python") for b in blocks(page))
    ],
)
def test_what_a_page_shows_runs(
    page: Path,
    request: pytest.FixtureRequest,
    shims: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in begins_with(page):
        fixture = "whole_road" if name_of(page) in SLOW else "road"
        road: Path = request.getfixturevalue(fixture)
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(road / name, tmp_path / name)
    monkeypatch.setenv("PATH", os.pathsep.join([str(shims), os.environ["PATH"]]))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.chdir(tmp_path)
    run_page(page, tmp_path)
