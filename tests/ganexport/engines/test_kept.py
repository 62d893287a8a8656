import importlib
import importlib.util
import logging
from pathlib import Path

import pytest

from ganexport.engines import kept


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


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="pip install 'ganpipe[rtx]'"
)
# tensorrt_rtx has the calls, which do nothing there.
@pytest.mark.filterwarnings("ignore:Use Deprecated:DeprecationWarning")
def test_timings_go_from_one_build_to_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from ganinfer.backends.tensorrt import product_logger

    trt = importlib.import_module("tensorrt_rtx")
    builder = trt.Builder(product_logger(trt))
    file = tmp_path / "timings"
    caplog.set_level(logging.WARNING)
    for _ in range(2):
        config = builder.create_builder_config()
        kept.use_timings(config, file)
        kept.keep_timings(config, file)
    timings = kept.read(file)
    assert timings
    assert timings == bytes(config.get_timing_cache().serialize())
    file.write_bytes(b"damaged")
    kept.use_timings(builder.create_builder_config(), file)
    assert "damaged" in caplog.text
