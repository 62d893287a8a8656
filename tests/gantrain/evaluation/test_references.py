from pathlib import Path

import pytest

from ganinfer.errors import DataError
from gantrain.data.prepare import prepare
from gantrain.evaluation.evaluate import evaluate


def test_other_data_than_the_generators_are_refused(run: Path, tmp_path: Path) -> None:
    prepare("digits", tmp_path / "digits", resolution=16)
    with pytest.raises(DataError, match="10 classes.*trained on 3 classes"):
        evaluate(run, tmp_path / "digits", num_images=10)
