"""MLflow: a file store beside the run's folder, unless MLFLOW_TRACKING_URI names another place.

MLFLOW_EXPERIMENT_NAME is looked at, too.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gantrain.trackers import _base

_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
_MOST_PARAMETERS = 100  # that a server takes at once


class Tracker(_base.Tracker):
    """One run of MLflow, whose steps are images seen."""

    needs = "mlflow"

    def __init__(self, run: Path, config: Mapping[str, Any], images_seen: int) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it calls home by default
        place = os.environ.get("MLFLOW_TRACKING_URI")
        if place is None:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            place = (run.resolve().parent / "mlruns").as_uri()
        from mlflow import entities
        from mlflow.tracking import MlflowClient

        self._entities: Any = entities
        self._client: Any = MlflowClient(tracking_uri=place)
        self._last = 0
        if (number := _base.kept_id(run, "mlflow")) is None:
            number = self._client.create_run(self._experiment(), run_name=run.name).info.run_id
            _base.keep_id(run, "mlflow", number)
            self._parameters(number, config)
        else:
            self._client.update_run(number, status="RUNNING")
            metrics = self._client.get_run(number).data.metrics
            self._last = int(metrics.get("images_seen", 0))
        self._number = number

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "ganpipe")
        found = self._client.get_experiment_by_name(name)
        number: str = found.experiment_id if found else self._client.create_experiment(name)
        return number

    def _parameters(self, number: str, config: Mapping[str, Any]) -> None:
        pairs = [(name, str(value)) for name, value in _base.flat(config).items()]
        parameters = [self._entities.Param(name, value) for name, value in pairs]
        for first in range(0, len(parameters), _MOST_PARAMETERS):
            self._client.log_batch(number, params=parameters[first : first + _MOST_PARAMETERS])

    def figures(self, images_seen: int, figures: Mapping[str, float]) -> None:
        if images_seen <= self._last:
            return  # a killed process told it, and MLflow would keep both
        now, named = int(time.time() * 1000), {**figures, "images_seen": images_seen}
        metrics = [
            self._entities.Metric(name, value, now, images_seen) for name, value in named.items()
        ]
        self._client.log_batch(self._number, metrics=metrics)

    def warnings(self, images_seen: int, warnings: list[str]) -> None:
        self._client.log_text(
            self._number, "\n".join(warnings) + "\n", f"warnings/{images_seen:012d}.txt"
        )

    def picture(self, images_seen: int, path: Path) -> None:
        self._client.log_artifact(self._number, str(path), "samples")

    def weights(self, path: Path) -> None:
        self._client.log_artifact(self._number, str(path), "weights")

    def close(self, ending: _base.Ending) -> None:
        self._client.set_terminated(self._number, _STATUS[ending])
