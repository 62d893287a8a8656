"""Training the GAN family and measuring what was trained.

from gantrain import evaluate, load_config, train
train(load_config(Path("dcgan-digits")), Path("runs/digits"))
scores = evaluate(Path("runs/digits")).values    # {"fid": ..., ...}
"""

from typing import TYPE_CHECKING

from ganinfer.lookup import lazy_face

if TYPE_CHECKING:
    from gantrain.data.prepare import prepare
    from gantrain.evaluation.evaluate import evaluate
    from gantrain.game.config import Config, load_config, parse_config
    from gantrain.training.train import train
else:
    __getattr__ = lazy_face(
        "gantrain",
        {
            "Config": "gantrain.game.config",
            "evaluate": "gantrain.evaluation.evaluate",
            "load_config": "gantrain.game.config",
            "parse_config": "gantrain.game.config",
            "prepare": "gantrain.data.prepare",
            "train": "gantrain.training.train",
        },
    )

__all__ = ["Config", "evaluate", "load_config", "parse_config", "prepare", "train"]
