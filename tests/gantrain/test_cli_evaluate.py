import pytest

from ganinfer.errors import ConfigError
from gantrain.cli.evaluate import parse_sweep


def test_a_sweep_is_read_with_both_ends() -> None:
    assert parse_sweep("truncation=0.2:1.0:0.2") == [0.2, 0.4, 0.6, 0.8, 1.0]
    for wrong in ("0.2:1:0.1", "truncation=1:0.5:0.1", "truncation=0.1:1:0", "truncation=a:1:1"):
        with pytest.raises(ConfigError, match="FIRST:LAST:STEP"):
            parse_sweep(wrong)
    with pytest.raises(ConfigError, match="at most"):
        parse_sweep("truncation=0.1:1:0.0000001")
