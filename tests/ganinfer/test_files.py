from pathlib import Path

import pytest

from ganinfer.errors import RequestError
from ganinfer.files import check_place, write_atomic


def test_a_place_is_tried_before_long_work_and_nothing_stays_there(tmp_path: Path) -> None:
    check_place(tmp_path / "new/x.json", ".json")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x.txt", "expected a name that ends in .json"),
        ("folder.json", "is a folder; expected the name of a file"),
        ("file/x.json", "cannot be written .* choose another place"),
        ("x" * 300 + ".json", "cannot be written .*name too long"),
    ],
)
def test_a_place_that_takes_no_file_is_refused(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RequestError, match=f"(?i){words}"):
        check_place(tmp_path / name, ".json")


def test_what_cannot_be_written_is_told_by_the_name_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as told:
        write_atomic(tmp_path / "nowhere/x.json", b"")
    assert told.value.filename == str(tmp_path / "nowhere/x.json")
