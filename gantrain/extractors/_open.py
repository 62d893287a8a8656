"""An extractor by name."""

from pathlib import Path

import torch

from ganinfer.errors import ConfigError
from ganinfer.progress import Progress
from gantrain.data.dataset import Dataset
from gantrain.extractors._base import Extractor

NAMES = "'classifier', 'inception', or the file of a network (.onnx, .pt)"


def open_extractor(
    name: str,
    dataset: Dataset | None,
    *,
    resizer: str | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Extractor:
    """Open what sees images for the metrics.

    Args:
        name: "classifier", which the dataset brings along (points are their own features);
            "inception"; or the file of a network.
        dataset: what the classifier is of.
        resizer: of "inception", how images come to 299x299.
        device: where it runs.
        progress: called with (what is being done, done, in all) while a classifier is trained.

    Raises:
        ConfigError: no such extractor, or one that takes no resizer.
        DataError: its file is missing or broken.
    """
    device = torch.device(device)
    if name == "inception":
        from gantrain.extractors.inception import open_inception

        inception: Extractor = open_inception(resizer=resizer or "tf", device=device)
        return inception
    if resizer is not None:
        raise ConfigError(f"--resizer {resizer}: only --extractor inception takes one")
    if name != "classifier":
        from gantrain.extractors.module import open_module

        path = Path(name)
        if path.suffix not in (".onnx", ".pt"):
            raise ConfigError(f"--extractor: there is no {name!r}; expected {NAMES}")
        return open_module(path, device=device)
    assert dataset is not None
    if dataset.points is not None:
        from gantrain.extractors.points import Points

        return Points(dataset.points, device)
    from gantrain.extractors.classifier import StackedExtractor, dataset_classifier

    show = (
        (lambda done, total: progress("training the classifier", done, total)) if progress else None
    )
    classifier = dataset_classifier(dataset, device=device, progress=show)
    return StackedExtractor(classifier) if dataset.stacked else classifier
