"""Training the GAN family and measuring what was trained.

from gantrain import evaluate, load_config, train
train(load_config(Path("dcgan-digits")), Path("runs/digits"))
scores = evaluate(Path("runs/digits")).values    # {"fid": ..., ...}

A part of your own inherits Objective, Hooks (a regularizer), GeneratorModule and
DiscriminatorModule (a model), or Tracker, or makes Scores of what was Measured (a metric).
"""

from typing import TYPE_CHECKING

from ganinfer.lookup import lazy_face

if TYPE_CHECKING:
    from gantrain.cli.bar import training_bar
    from gantrain.data.indexing import index_shards
    from gantrain.data.prepare import prepare
    from gantrain.evaluation.evaluate import evaluate
    from gantrain.game.config import Config, load_config, parse_config
    from gantrain.game.parts import Game, Hooks, Objective, Step, View
    from gantrain.metrics._measured import Measured
    from gantrain.metrics._reference import Reference
    from gantrain.metrics._score import Better, Score
    from gantrain.models._base import DiscriminatorModule, GeneratorModule
    from gantrain.trackers._base import Tracker
    from gantrain.training.train import train
else:
    __getattr__ = lazy_face(
        "gantrain",
        {
            "Better": "gantrain.metrics._score",
            "Config": "gantrain.game.config",
            "DiscriminatorModule": "gantrain.models._base",
            "Game": "gantrain.game.parts",
            "GeneratorModule": "gantrain.models._base",
            "Hooks": "gantrain.game.parts",
            "Measured": "gantrain.metrics._measured",
            "Objective": "gantrain.game.parts",
            "Reference": "gantrain.metrics._reference",
            "Score": "gantrain.metrics._score",
            "Step": "gantrain.game.parts",
            "Tracker": "gantrain.trackers._base",
            "View": "gantrain.game.parts",
            "evaluate": "gantrain.evaluation.evaluate",
            "index_shards": "gantrain.data.indexing",
            "load_config": "gantrain.game.config",
            "parse_config": "gantrain.game.config",
            "prepare": "gantrain.data.prepare",
            "train": "gantrain.training.train",
            "training_bar": "gantrain.cli.bar",
        },
    )

__all__ = [
    "Better",
    "Config",
    "DiscriminatorModule",
    "Game",
    "GeneratorModule",
    "Hooks",
    "Measured",
    "Objective",
    "Reference",
    "Score",
    "Step",
    "Tracker",
    "View",
    "evaluate",
    "index_shards",
    "load_config",
    "parse_config",
    "prepare",
    "train",
    "training_bar",
]
