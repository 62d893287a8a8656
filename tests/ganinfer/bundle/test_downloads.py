import os
import time
from pathlib import Path

import pytest

from ganinfer.bundle.downloads import KEPT_BUNDLES, Seen, content, incoming, keep, remember, seen
from ganinfer.bundle.tree import write_tree


@pytest.fixture
def bring(tmp_path: Path, downloads: Path):
    """Keep a small file that is stored as a bundle is; what is in it makes it another one."""

    def kept(text: str) -> Path:
        place = tmp_path / "small.gan"
        write_tree(place, {"text": text.encode()}, single_file=True)
        with incoming(text) as part:
            part.write_bytes(place.read_bytes())
            return keep(part, text)

    return kept


def long_ago(file: Path, seconds: float) -> None:
    os.utime(file, (time.time() - seconds,) * 2)


def test_those_that_were_used_last_are_kept(bring, downloads: Path) -> None:
    files = [bring(str(number)) for number in range(KEPT_BUNDLES)]
    for number, file in enumerate(files):
        long_ago(file, 100 - number)
    assert content(files[0].stem) == files[0]  # used once more
    new = bring("new")
    assert set(downloads.glob("*.gan")) == {*files, new} - {files[1]}


def test_a_new_one_stays_even_if_the_clock_was_wrong(bring, downloads: Path) -> None:
    for number in range(KEPT_BUNDLES):
        long_ago(bring(str(number)), -1000)
    assert bring("new").exists()


def test_who_has_one_open_reads_on(bring) -> None:
    first = bring("first")
    with first.open("rb") as file:
        long_ago(first, 100)
        for number in range(KEPT_BUNDLES):
            bring(str(number))
        assert not first.exists()
        assert b"first" in file.read()


def test_a_damaged_one_is_none_and_is_made_anew(bring, caplog) -> None:
    file = bring("x")
    good = file.read_bytes()
    file.write_bytes(good[:-1])
    assert content(file.stem) is None
    assert "damaged" in caplog.text
    assert bring("x") == file
    assert file.read_bytes() == good


def test_what_a_killed_process_left_goes_after_an_hour(bring, downloads: Path) -> None:
    bring("first")
    left, new = downloads / ".1.part", downloads / ".2.part"
    for file in (left, new):
        file.touch()
    long_ago(left, 2 * 3600)
    bring("second")
    assert not left.exists()
    assert new.exists()


def test_notes_of_urls_have_no_url_in_them_and_do_not_grow(bring, downloads: Path) -> None:
    for number in range(100):
        remember(f"https://host/x?secret={number}", Seen("ab" * 32, "ETag one two"))
    assert seen("https://host/x?secret=99") == ("ab" * 32, "ETag one two")
    assert seen("https://host/x?secret=100") is None
    notes = list((downloads / "urls").iterdir())
    assert len(notes) == 64
    assert not any(b"secret" in note.read_bytes() for note in notes)
