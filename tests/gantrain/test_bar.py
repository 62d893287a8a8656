import pytest

from gantrain.cli.bar import training_bar
from gantrain.training.record import Progress


def test_a_log_has_all_that_a_run_is_watched_by(capsys: pytest.CaptureFixture[str]) -> None:
    losses = {"loss_d": 0.691, "loss_g": 1.2, "diversity": 0.9}
    with training_bar() as report:
        report(Progress(0, 600_000, 0.0, {}, notes=["begins with x"]))
        report(
            Progress(12_800, 600_000, 531.4, losses, fid=12.34, seconds_left=1100, is_record=True)
        )
        report(Progress(12_864, 600_000, 530.0, losses, fid=12.34, seconds_left=1100))
        report(Progress(600_000, 600_000, 530.0, losses, is_record=True, warnings=["collapsed"]))
    assert capsys.readouterr().out.splitlines() == [
        "begins with x",
        "12,800/600,000 images  531/s  18 min left  loss D 0.69 G 1.20  FID 12.3",
        "at 600 kimg: collapsed",
        "600,000/600,000 images  530/s  loss D 0.69 G 1.20",
    ]
