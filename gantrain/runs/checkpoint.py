"""One file holds the whole state of a run: safetensors, so that nothing is ever unpickled.

The state is a tree of dicts and lists. Its tensors are stored under numbered names, and the tree
itself, with a note at each tensor's place, as JSON in the file's metadata.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ganinfer.errors import CheckpointError, RunNotFound
from ganinfer.files import sha256_file, write_atomic
from gantrain.data.resolution import Resolution, resolution_of
from gantrain.game.build import build_discriminator, build_generator
from gantrain.game.config import Config, parse_config
from gantrain.models._base import DiscriminatorModule, GeneratorModule

FORMAT_VERSION = 2

State = dict[str, Any]


def save_checkpoint(run: Path, state: State, *, keep: int) -> Path:
    """Write run/checkpoints/<images_seen>.safetensors whole or not at all; drop the oldest.

    Args:
        run: folder of the run.
        state: dicts (with string keys) and lists of tensors, numbers, strings and None;
            state["images_seen"] names the file.
        keep: how many checkpoints stay.

    Returns:
        The file.
    """
    folder = run / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{state['images_seen']:012d}.safetensors"
    _write(path, state)
    for old in checkpoint_files(run)[:-keep]:
        old.unlink()
    return path


def save_best(run: Path, state: State) -> Path:
    """Write run/best.safetensors, in the same form."""
    path = run / "best.safetensors"
    _write(path, state)
    return path


def _write(path: Path, state: State) -> None:
    tensors: dict[str, torch.Tensor] = {}
    tree = json.dumps({"format_version": FORMAT_VERSION, "state": _strip(state, tensors)})
    write_atomic(path, save(tensors, metadata={"ganpipe": tree}))


def checkpoint_files(run: Path) -> list[Path]:
    """The run's checkpoints, oldest first."""
    return sorted((run / "checkpoints").glob("[0-9]*.safetensors"))


def load_checkpoint(path: Path, *, device: torch.device | str = "cpu") -> State:
    """Read what `save_checkpoint` wrote.

    Raises:
        CheckpointError: the file is damaged, or none of ours.
    """
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            tree = json.loads((file.metadata() or {}).get("ganpipe", "{}"))
            if tree.get("format_version") != FORMAT_VERSION:
                raise CheckpointError(
                    f"{path}: checkpoint format {tree.get('format_version')}, expected"
                    f" {FORMAT_VERSION}; it was written by another program or version"
                )
            state: State = _fill(tree["state"], file)
            return state
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not a checkpoint, or damaged ({error}); move it away, and its run goes on"
            " from the one before"
        ) from None


def is_checkpoint(path: Path) -> bool:
    """Does a file say of itself that it is one of ours?"""
    try:
        with safe_open(path, framework="pt") as file:
            return "ganpipe" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def _strip(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        name = f"{len(tensors):06d}"
        tensors[name] = value.detach().cpu().contiguous()
        return {"__tensor__": name}
    if isinstance(value, dict):
        return {str(key): _strip(item, tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strip(item, tensors) for item in value]
    return value


def _fill(value: Any, file: Any) -> Any:
    if isinstance(value, dict):
        if "__tensor__" in value:
            return file.get_tensor(value["__tensor__"])
        return {key: _fill(item, file) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, file) for item in value]
    return value


@dataclass(frozen=True)
class TrainedGenerator:
    """The averaged generator of a checkpoint, and what is known of it.

    Attributes:
        network: float32, eval mode, on the CPU. config: the recipe that trained it.
        resolution, channels: of the dataset's images. classes: that the network takes; [] if it is
            unconditional. images_seen: how long it was trained.
        path, sha256: the checkpoint file. dataset_path, dataset_sha256: what it was trained on.
    """

    network: GeneratorModule
    config: Config
    resolution: Resolution
    channels: int
    classes: list[str]
    images_seen: int
    path: Path
    sha256: str
    dataset_path: Path
    dataset_sha256: str


def load_generator(run: Path) -> TrainedGenerator:
    """Load the EMA generator of a run's newest checkpoint, or of one checkpoint file.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    path, state = load_newest(run)
    config, data = parse_config(state["config"], where=str(path)), state["dataset"]
    resolution, channels, num_classes = shape_of_data(state)
    network = build_generator(config, resolution, channels, num_classes)
    network.load_state_dict(state["ema"])
    return TrainedGenerator(
        network=network.eval().requires_grad_(False),
        config=config,
        resolution=resolution,
        channels=channels,
        classes=data["classes"],
        images_seen=state["images_seen"],
        path=path,
        sha256=sha256_file(path),
        dataset_path=_data_of(path, data, config),
        dataset_sha256=data["sha256"],
    )


def from_run(run: Path, data: Path) -> str:
    """The way from a run to its data, for when both are moved."""
    try:
        return os.path.relpath(data.resolve(), run.resolve())
    except ValueError:  # on Windows there is none to another drive
        return str(data.resolve())


def _data_of(path: Path, data: dict[str, Any], config: Config) -> Path:
    """Where the data of a checkpoint lie: where they lay, or as far from the run as then."""
    run = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    lay, from_here = Path(data["path"]), Path(data.get("from_run", data["path"]))
    places = [lay, run / from_here, Path(config.data.path)]
    return next((place for place in places if place.exists()), places[0])


def load_discriminator(run: Path) -> DiscriminatorModule:
    """Load the discriminator beside that generator: float32, eval mode, on the CPU.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    path, state = load_newest(run)
    config = parse_config(state["config"], where=str(path))
    network = build_discriminator(config, *shape_of_data(state))
    network.load_state_dict(state["discriminator"])
    return network.eval().requires_grad_(False)


def shape_of_data(state: State) -> tuple[Resolution, int, int]:
    """Resolution, channels and number of classes of what a checkpoint was trained on."""
    data = state["dataset"]
    side = data["resolution"]  # JSON made a list of (height, width)
    resolution = side if isinstance(side, int) else resolution_of(tuple(side))
    return resolution, data["channels"], len(data["classes"])


def load_newest(run: Path) -> tuple[Path, State]:
    """A run's newest checkpoint, or the one checkpoint that is named, and what it holds.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    files = checkpoint_files(run) if run.is_dir() else [run]
    if not files or not files[-1].exists():
        raise RunNotFound(f"{run}: no checkpoint there; expected the folder of a run")
    return files[-1], load_checkpoint(files[-1])
