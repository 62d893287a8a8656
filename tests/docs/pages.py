"""The pages that people read, taken apart: blocks, links, headings, what stands in `code`."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])  # their blocks are run
ALL_PAGES = sorted({*PAGES, *ROOT.glob("gan*/**/*.md"), *ROOT.glob("benchmarks/**/*.md")})

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NOT_RUN = re.compile(r"<!-- not run: (.+?) -->\s*\Z")
_BEGINS = re.compile(r"<!-- run in a folder with: (.+?) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block. not_run: the reason that the page gives; None if it is run."""

    page: Path
    line: int
    language: str
    text: str
    not_run: str | None

    @property
    def where(self) -> str:
        return f"{name_of(self.page)}:{self.line}"

    @property
    def file_name(self) -> str | None:
        """Of a block that a reader saves, as its first line says: `# mynets.py`."""
        match = re.match(r"# ([\w./-]+\.\w+)\n", self.text)
        return match[1] if match else None


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = []
    for match in _FENCE.finditer(text):
        announced = _NOT_RUN.search(text[: match.start()])
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, line, match[1], match[2], announced[1] if announced else None))
    return found


def begins_with(page: Path) -> list[str]:
    """The files that a page's reader has already, made by the commands of the README."""
    match = _BEGINS.search(page.read_text())
    return match[1].split() if match else []


def prose(page: Path) -> str:
    """A page without its blocks."""
    return _FENCE.sub("", page.read_text())


def code_spans(page: Path) -> list[str]:
    """What stands between backquotes; one span may go over the end of a line."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]


def links(page: Path) -> list[str]:
    """Where links and pictures point to, on this disk."""
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", prose(page)))
    targets += re.findall(r"(?:src|href)=\"([^\"]+)\"", prose(page))
    return [target for target in targets if not re.match(r"\w+:", target)]


def anchors(page: Path) -> set[str]:
    """What a code host makes of headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-")
        number = 0
        while (name := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(name)
    return found


def gan_commands(script: str) -> Iterator[list[str]]:
    """The arguments of each `gan ...` in a shell script, whatever stands before it."""
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
        lexer.whitespace_split = True
        command: list[str] = []
        for token in [*lexer, ";"]:
            if set(token) <= set("&|;"):
                for number, word in enumerate(command):
                    if word.rpartition("/")[2] == "gan" and ":" not in word:
                        yield command[number + 1 :]
                        break
                command = []
            else:
                command.append(token)
