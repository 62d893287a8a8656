from pathlib import Path

from ganexport.graph.macs import macs_per_image
from ganinfer.bundle.archive import Bundle
from gantrain.game.config import Config
from gantrain.training.summary import summarize


def test_a_bundle_says_what_torch_counts(bundle: Path, recipe: Config) -> None:
    with Bundle(bundle) as opened:
        assert opened.manifest.model.macs == summarize(recipe)[0].macs
        assert macs_per_image(opened.read_graph("fp32")) == opened.manifest.model.macs
