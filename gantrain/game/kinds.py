"""The kinds of parts that a config names, and what each must have; see `ganinfer.lookup`."""

from ganinfer.lookup import Kind, held_class
from gantrain.game.parts import Hooks, Objective
from gantrain.models._base import DiscriminatorModule, GeneratorModule
from gantrain.trackers._base import Tracker

_SHAPE = ("resolution", "channels", "num_classes")

MODEL = Kind(
    "gantrain.models",
    {
        "Generator": held_class(GeneratorModule, *_SHAPE, overrides=("forward",)),
        "Discriminator": held_class(DiscriminatorModule, *_SHAPE, overrides=("features",)),
    },
)
DISCRIMINATOR = Kind(
    "gantrain.discriminators",
    {"Discriminator": held_class(DiscriminatorModule, *_SHAPE, overrides=("features",))},
)
OBJECTIVE = Kind(
    "gantrain.objectives",
    {"Objective": held_class(Objective, overrides=("discriminator_loss", "generator_loss"))},
)
REGULARIZER = Kind("gantrain.regularizers", {"Regularizer": held_class(Hooks)})
TRACKER = Kind(
    "gantrain.trackers",
    {"Tracker": held_class(Tracker, "run", "config", "images_seen", overrides=("figures",))},
)
