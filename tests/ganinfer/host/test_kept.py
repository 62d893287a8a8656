from pathlib import Path

import pytest

from ganinfer.host import kept


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    kept.write(tmp_path / "new" / "x", b"content")
    assert kept.read(tmp_path / "new" / "x") == b"content"
    assert kept.read(tmp_path / "y") is None


def test_a_damaged_file_is_left_alone_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept.write(tmp_path / "x", b"content")
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:-1])
    assert kept.read(tmp_path / "x") is None
    assert "damaged" in caplog.text


def test_where_nothing_can_be_kept_a_line_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    kept.write(tmp_path / "file" / "x", b"content")
    assert "not kept" in caplog.text
