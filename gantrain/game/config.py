"""TOML -> a validated Config. Everything is checked before any work is done.

[data] · [model] name, with [model.generator] and [model.discriminator], which may name another
than the model's · [objective] name · any number of [[regularizers]] name · [optimizer.generator]
and [optimizer.discriminator] name · [schedule] name · [start] · [train]. A name is a module, ours
or package.module of one's own (a function of ours for optimizers and schedules), and the remaining
keys of its section are that part's keyword arguments.
"""

import inspect
import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ganinfer.errors import ConfigError, ConfigNotFound
from ganinfer.lookup import (
    check_options,
    explain,
    find_part,
    identity,
    suggest,
)
from gantrain.data.resolution import Resolution, in_words, read_resolution
from gantrain.game import optimizers, schedules
from gantrain.game.kinds import DISCRIMINATOR, MODEL, OBJECTIVE, REGULARIZER
from gantrain.game.recipes import shipped_recipes

S = TypeVar("S", bound=BaseModel)

SECTIONS = ("data", "model", "objective", "regularizers", "optimizer", "schedule", "start", "train")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _checked_resolution(text: int | str) -> int | str:
    resolution = read_resolution(text)
    return resolution if isinstance(resolution, int) else in_words(resolution)


class DataConfig(_Section):
    """[data]: what `gan prepare` wrote, or shards. mirror flips half of the images.

    source: an embedded set that the folder is made of, if it is not there. resolution: to which
    pictures, shards and that set are cropped and resized, 64 or "128x256", height x width. labels:
    false leaves labels of pictures and shards out. window_mb: so much of shards is shuffled at
    once, 128 by default.
    """

    path: Annotated[str, Field(min_length=1)]
    source: Literal["digits", "ring8", "grid25"] | None = None
    resolution: Annotated[int | str, AfterValidator(_checked_resolution)] | None = None
    labels: bool = True
    mirror: bool = False
    window_mb: Annotated[float, Field(gt=0)] | None = None

    @property
    def size(self) -> Resolution | None:
        """The resolution as a number, or as (height, width)."""
        return None if self.resolution is None else read_resolution(self.resolution)


class StartConfig(_Section):
    """[start], if it is there: networks to begin with; `gan train --from` sets its path.

    path: a run, a checkpoint, or a safetensors file of a generator's weights.
    generator: "ema" begins with the averaged generator, which was measured and shipped; "raw" with
    the one that the discriminator played against, and its average. state: the moments of the
    optimizers and the state of the regularizers go on as well.
    """

    path: Annotated[str, Field(min_length=1)]
    generator: Literal["ema", "raw"] = "ema"
    state: bool = False


class TrainConfig(_Section):
    """[train]. One kimg is 1,000 real images shown to the discriminator.

    batch_size is of one optimizer step, over all processes; microbatch_size is what goes through a
    network of one process at once. truncation: of the latents that G is trained on.
    ema_half_life_kimg counts the images that G draws, batch_size in each of its steps; early on
    it is the share ema_ramp_up of the images seen.
    freeze: layers whose weights stay as they are, as in "discriminator.downs.0" (Freeze-D, Mo et
    al., 2002.10964); statistics of batch norms go on.
    eval_kimg = 0 never measures. standing_batches: before the EMA network is used, its batch
    norms' statistics are taken anew over that many batches of 64; 0 copies the training network's.
    trackers: files of gantrain/trackers, or package.module of one's own, that are told everything.
    """

    total_kimg: Annotated[float, Field(gt=0)]
    batch_size: Annotated[int, Field(ge=1)] = 64
    microbatch_size: Annotated[int, Field(ge=1)] | None = None
    discriminator_steps: Annotated[int, Field(ge=1)] = 1
    truncation: Annotated[float, Field(gt=0)] | None = None
    freeze: list[str] = []
    ema_half_life_kimg: Annotated[float, Field(ge=0)] = 10.0
    ema_ramp_up: Annotated[float, Field(gt=0)] = 0.05
    standing_batches: Annotated[int, Field(ge=0)] = 0
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = False
    compile: Literal["off", "on", "cuda_graphs"] = "off"
    log_kimg: Annotated[float, Field(gt=0)] = 5.0
    sample_kimg: Annotated[float, Field(gt=0)] = 50.0
    checkpoint_kimg: Annotated[float, Field(gt=0)] = 50.0
    keep_checkpoints: Annotated[int, Field(ge=1)] = 3
    eval_kimg: Annotated[float, Field(ge=0)] = 0.0
    eval_images: Annotated[int, Field(ge=2)] = 5000
    trackers: list[str] = ["tensorboard"]

    @property
    def total_images(self) -> int:
        """How many real images D is to be shown."""
        return math.ceil(1000 * self.total_kimg)


@dataclass(frozen=True)
class Part:
    """A named part and its checked options."""

    name: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Config:
    """A whole recipe. `where` names it in messages."""

    where: str
    data: DataConfig
    train: TrainConfig
    model: str
    conditional: bool
    generator: dict[str, Any]
    discriminator: dict[str, Any]
    discriminator_name: str | None  # None: the model's own
    objective: Part
    regularizers: list[Part]
    generator_optimizer: Part
    discriminator_optimizer: Part
    schedule: Part
    start: StartConfig | None = None

    def as_dict(self) -> dict[str, Any]:
        """The sections as `parse_config` reads them, defaults filled in."""
        return {
            "data": self.data.model_dump(),
            "model": {
                "name": self.model,
                "conditional": self.conditional,
                "generator": self.generator,
                "discriminator": {
                    **({"name": self.discriminator_name} if self.discriminator_name else {}),
                    **self.discriminator,
                },
            },
            "objective": _flat(self.objective),
            "regularizers": [_flat(part) for part in self.regularizers],
            "optimizer": {
                "generator": _flat(self.generator_optimizer),
                "discriminator": _flat(self.discriminator_optimizer),
            },
            "schedule": _flat(self.schedule),
            "start": self.start and self.start.model_dump(),
            "train": self.train.model_dump(),
        }

    @property
    def own_parts(self) -> list[str]:
        """The user's own among the parts that make the networks, with the hash of their sources."""
        names = [self.model, self.objective.name, *(part.name for part in self.regularizers)]
        names += [self.discriminator_name] if self.discriminator_name else []
        return [identity(name) for name in names if identity(name) != name]


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read and check a recipe.

    Args:
        path: a TOML file, or the bare name of a shipped recipe ("dcgan-digits").
        overrides: "section.key=value" each, value in TOML, or a plain string.

    Raises:
        ConfigError: names the file, the key, what was found and what it takes.
    """
    bare_name = path.name == str(path) and not path.suffix
    found = shipped_recipes().get(path.name, path) if bare_name and not path.is_file() else path
    try:
        tree = tomllib.loads(found.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(shipped_recipes()))
        raise ConfigNotFound(f"{path}: no such config; shipped ones are {known}") from None
    except IsADirectoryError:
        raise ConfigError(
            f"{path}: is a folder; expected a .toml file; pictures to train on are named by --set"
            f" data.path={path}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    for override in overrides:
        apply_override(tree, override)
    return parse_config(tree, where=str(path))


def parse_config(tree: dict[str, Any], *, where: str) -> Config:
    """Check sections that were read from a file or a checkpoint; see `load_config`."""
    _check_keys(tree, SECTIONS, where=where, what="section")
    data = _section(DataConfig, tree, "data", where)
    train = _section(TrainConfig, tree, "train", where)
    start = _section(StartConfig, tree, "start", where) if tree.get("start") is not None else None
    model = _table(tree, "model", where)
    keys = ("name", "conditional", "generator", "discriminator")
    _check_keys(model, keys, where=f"{where} [model]", what="key")
    conditional = model.get("conditional", True)
    if not isinstance(conditional, bool):
        raise ConfigError(
            f"{where} [model] conditional: found {conditional!r}; expected true or false"
        )
    model_name = _name(model, f"{where} [model]")
    module = find_part(MODEL, model_name, where=f"{where} [model] name")
    generator = _table(model, "generator", f"{where} [model]", optional=True)
    discriminator = dict(_table(model, "discriminator", f"{where} [model]", optional=True))
    place, opponent = f"{where} [model.discriminator]", module
    if (discriminator_name := discriminator.pop("name", None)) is not None:
        discriminator_name = _name({"name": discriminator_name}, place)
        opponent = find_part(DISCRIMINATOR, discriminator_name, where=f"{place} name")
    generator_options = check_options(
        module.Generator, generator, where=f"{where} [model.generator]", name=model_name
    )
    discriminator_options = check_options(
        opponent.Discriminator, discriminator, where=place, name=discriminator_name or model_name
    )
    objective = _table(tree, "objective", where)
    objective_name = _name(objective, f"{where} [objective]")
    objective_part = find_part(OBJECTIVE, objective_name, where=f"{where} [objective] name")
    optimizer = _table(tree, "optimizer", where)
    _check_keys(
        optimizer, ("generator", "discriminator"), where=f"{where} [optimizer]", what="section"
    )
    return Config(
        where=where,
        data=data,
        train=train,
        model=model_name,
        conditional=conditional,
        generator=generator_options,
        discriminator=discriminator_options,
        discriminator_name=discriminator_name,
        objective=_part(objective, objective_part.Objective, f"{where} [objective]"),
        regularizers=_regularizers(tree, where),
        generator_optimizer=_function(
            optimizers,
            _table(optimizer, "generator", f"{where} [optimizer]"),
            f"{where} [optimizer.generator]",
        ),
        discriminator_optimizer=_function(
            optimizers,
            _table(optimizer, "discriminator", f"{where} [optimizer]"),
            f"{where} [optimizer.discriminator]",
        ),
        schedule=_function(
            schedules, tree.get("schedule", {"name": "constant"}), f"{where} [schedule]"
        ),
        start=start,
    )


def _regularizers(tree: dict[str, Any], where: str) -> list[Part]:
    sections = tree.get("regularizers", [])
    if not isinstance(sections, list) or not all(isinstance(s, dict) for s in sections):
        raise ConfigError(f"{where} regularizers: found {sections!r}; expected [[regularizers]]")
    parts: list[Part] = []
    for section in sections:
        name = _name(section, f"{where} [[regularizers]]")
        place = f"{where} [[regularizers]]"
        module = find_part(REGULARIZER, name, where=f"{place} name")
        if name in [part.name for part in parts]:
            raise ConfigError(f"{place} name: {name!r} stands there twice; leave one out")
        parts.append(_part(section, module.Regularizer, f"{place} {name}"))
    return parts


def _function(module: ModuleType, section: Any, where: str) -> Part:
    """A part that is a public function of a module."""
    if not isinstance(section, dict):
        raise ConfigError(f"{where}: found {section!r}; expected a section")
    name = _name(section, where)
    names = [
        name
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    ]
    if name not in names:
        raise ConfigError(f"{where} name: there is no {name!r}; {suggest(name, names)}")
    return _part(section, getattr(module, name), where)


def _part(section: dict[str, Any], constructor: Any, where: str) -> Part:
    name = section["name"]
    options = {key: value for key, value in section.items() if key != "name"}
    return Part(name, check_options(constructor, options, where=where, name=name))


def _flat(part: Part) -> dict[str, Any]:
    return {"name": part.name, **part.options}


def _name(section: dict[str, Any], where: str) -> str:
    name = section.get("name")
    if not isinstance(name, str):
        raise ConfigError(f"{where} name: found {name!r}; expected a string")
    return name


def _table(tree: dict[str, Any], key: str, where: str, *, optional: bool = False) -> dict[str, Any]:
    if key not in tree and not optional:
        raise ConfigError(f"{where}: section [{key}] is missing; add it")
    section = tree.get(key, {})
    if not isinstance(section, dict):
        raise ConfigError(f"{where} {key}: found {section!r}; expected a section")
    return section


def _section(schema: type[S], tree: dict[str, Any], key: str, where: str) -> S:
    section = _table(tree, key, where)
    _check_keys(section, tuple(schema.model_fields), where=f"{where} [{key}]", what="key")
    try:
        return schema.model_validate(section)
    except ValidationError as error:
        raise ConfigError(explain(error, where=f"{where} [{key}]")) from None


def _check_keys(tree: dict[str, Any], known: Sequence[str], *, where: str, what: str) -> None:
    for key in tree:
        if key not in known:
            raise ConfigError(f"{where}: there is no {what} {key!r}; {suggest(key, list(known))}")


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set a.b.c=value in the tree; the value is TOML, or a plain string.

    Raises:
        ConfigError: it is written otherwise.
    """
    dotted, equals, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(
            f"--set {override}: expected section.key=value, as in train.batch_size=64"
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"--set {override}: {key!r} is a value, not a section")
    tree[keys[-1]] = value
