"""Every command and option that a page names exists, in blocks that are not run, too."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
from pages import ALL_PAGES, PAGES, Block, blocks, code_spans, gan_commands, name_of

from ganexport.cli.gan import app
from ganexport.cli.help import EXAMPLES

GAN: Any = typer.main.get_command(app)
SCRIPTS = [block for page in PAGES for block in blocks(page) if block.language == "sh"]


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


@pytest.mark.parametrize("name", GAN.commands)
def test_the_examples_of_a_commands_help_are_what_it_takes(name: str) -> None:
    examples = [next(gan_commands(line)) for line in EXAMPLES[name]]
    assert len(examples) == 2
    for words in examples:
        assert words[0] == name
        assert problem_of(words) is None, words


def test_every_example_is_of_a_command() -> None:
    assert set(EXAMPLES) == set(GAN.commands)


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
            if name in flags_of(GAN) and not rest:  # `gan --version`
                continue
            assert name in GAN.commands, f"{name_of(page)}: {span}"
            unknown = {word for word in rest if word[:2] == "--"} - flags_of(GAN.commands[name])
            assert not unknown, f"{name_of(page)}: {span}"
        elif re.match(r"--[a-z]", span):
            assert span.split()[0] in known, f"{name_of(page)}: {span}"
