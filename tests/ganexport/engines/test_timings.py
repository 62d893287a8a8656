import importlib
import importlib.util
import logging
from pathlib import Path

import pytest

from ganexport.engines.timings import keep_timings, use_timings
from ganinfer.backends._tensorrt_library import product_logger
from ganinfer.host import kept


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="pip install 'ganpipe[rtx]'"
)
# tensorrt_rtx has the calls, which do nothing there.
@pytest.mark.filterwarnings("ignore:Use Deprecated:DeprecationWarning")
def test_timings_go_from_one_build_to_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trt = importlib.import_module("tensorrt_rtx")
    builder = trt.Builder(product_logger(trt))
    file = tmp_path / "timings"
    caplog.set_level(logging.WARNING)
    for _ in range(2):
        config = builder.create_builder_config()
        use_timings(config, file)
        keep_timings(config, file)
    timings = kept.read(file)
    assert timings
    assert timings == bytes(config.get_timing_cache().serialize())
    file.write_bytes(b"damaged")
    use_timings(builder.create_builder_config(), file)
    assert "damaged" in caplog.text
