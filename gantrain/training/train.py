"""The training loop.

N batch; z (N, Z) latents; y int64 (N,) labels or None; images (N, C, H, W) in [-1, 1]; logits (N,).
"""

import logging
import math
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ganinfer.drawing.images import save_png
from ganinfer.errors import ConfigError
from ganinfer.files import only_writer
from gantrain.data.windows import real_batches
from gantrain.distributed import (
    AnyProcess,
    alone,
    average_gradients,
    barrier,
    local_rank,
    process_group,
    rank,
    several_processes,
    world_size,
)
from gantrain.game.build import (
    build_game,
    build_optimizer,
    learning_rate_factor,
    load_optimizer,
    open_data,
)
from gantrain.game.config import Config, Part, TrainConfig
from gantrain.game.parts import Game, Step
from gantrain.models._base import batch_norm_of
from gantrain.runs.checkpoint import (
    State,
    checkpoint_files,
    from_run,
    load_checkpoint,
    save_best,
    save_checkpoint,
)
from gantrain.runs.folder import claim_run_folder, note
from gantrain.runs.log import StatsLog
from gantrain.runs.samples import Sheet
from gantrain.training.ema import Ema
from gantrain.training.inheritance import inherit
from gantrain.training.record import (
    Progress,
    Recorder,
    StoppedError,
    game_figures,
    gradient_norm,
)
from gantrain.training.standing import standing_statistics
from gantrain.training.tracking import Trackers, find_trackers

log = logging.getLogger(__name__)

DiscriminatorLoss = Callable[[Tensor, Tensor, Tensor | None, Tensor], tuple[Tensor, Step]]
GeneratorLoss = Callable[[Tensor, Tensor | None, Tensor], Tensor]
Owed = Literal["picture", "measurement"]  # what was due, and is not there yet


@dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended. finished is False if it was asked to stop."""

    run: Path
    checkpoint: Path
    images_seen: int
    finished: bool


def train(
    config: Config,
    run: Path,
    *,
    allow: Sequence[str] = (),
    on_start: Callable[[Game], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    should_save: Callable[[], bool] | None = None,
) -> Outcome:
    """Train a GAN, from the start or from the run's last checkpoint.

    The start is fresh weights, or what [start] of the recipe names.

    Stopped or killed and called again with the same config, a run goes on from its newest
    checkpoint; on a CPU its final weights are bit-identical to those of an uninterrupted run. Under
    torchrun, several processes share every batch; a run may go on with another number of them.

    Args:
        config: the recipe.
        run: folder of the run: config.json, checkpoints/, samples/, stats.jsonl, and
            best.safetensors where FID is measured.
        allow: keys of the recipe, or sections, that a run which goes on may have otherwise than
            before: "schedule", say; see `gantrain.runs.folder.ALLOWABLE`.
        on_start: called once with the game, before the first step.
        on_progress: called every log_kimg, and once a second in between.
        should_stop: asked after every step, and while the run is measured; True saves a checkpoint
            and returns. What was due then and is not measured yet is measured when the run goes on.
        should_save: asked as often by the first process; True saves a checkpoint, and the run
            goes on.

    Returns:
        Where the last checkpoint is, and whether the run is finished.

    Raises:
        CheckpointError: what [start] names cannot be begun with.
        ConfigError: the device is missing, parts cannot be combined, the data cannot be modelled,
            or the run folder holds a run of another config.
        DataError: the dataset is missing or broken.
        TrainingError: a loss is not finite; the last good checkpoint is kept.
        GanError: another process is training in the folder.
    """
    device = pick_device(config.train.device, where=config.where)
    with process_group(device):
        return _train(
            config,
            run,
            device,
            allow,
            on_start,
            on_progress,
            should_stop or (lambda: False),
            should_save or (lambda: False),
        )


def _train(
    config: Config,
    run: Path,
    device: torch.device,
    allow: Sequence[str],
    on_start: Callable[[Game], None] | None,
    on_progress: Callable[[Progress], None] | None,
    should_stop: Callable[[], bool],
    should_save: Callable[[], bool],
) -> Outcome:
    # The data decides the shape of the networks.
    options, kinds = config.train, find_trackers(config)
    data, dataset = config.data, open_data(config)
    torch.manual_seed(options.seed)
    game = build_game(config, dataset.resolution, dataset.channels, dataset.num_classes, device)
    check_shares(config, game)
    generator, discriminator, draws = game.generator, game.discriminator, game.draws
    if options.channels_last:
        for network in (generator, discriminator):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = Ema(generator, half_life_kimg=options.ema_half_life_kimg, ramp_up=options.ema_ramp_up)
    for _, hook in game.hooks:
        hook.open_data(dataset, device, options.seed)
    generator_optimizer = build_optimizer(config.generator_optimizer, generator)
    discriminator_optimizer = build_optimizer(config.discriminator_optimizer, discriminator)
    batches = real_batches(
        dataset,
        options.batch_size,
        seed=options.seed,
        device=device,
        mirror=data.mirror,
        window_mb=data.window_mb,
    )
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16")
    discriminator_loss, generator_loss = losses(game, options)
    trainable = [weight for weight in discriminator.parameters() if weight.requires_grad]
    best_fid, ancestry = math.inf, None
    owed: set[Owed] = set()

    def state() -> State:
        return {
            "config": config.as_dict(),
            "dataset": {
                "path": str(dataset.path.resolve()),
                "from_run": from_run(run, dataset.path),
                "sha256": dataset.sha256,
                "resolution": dataset.resolution,
                "channels": dataset.channels,
                "num_classes": dataset.num_classes,
                "classes": dataset.classes if game.num_classes else [],
            },
            "images_seen": game.images_seen,
            "position": batches.position,
            "ancestry": ancestry,
            "best_fid": None if math.isinf(best_fid) else best_fid,
            "best_fid_classes": "data",  # how often each was asked for
            "owed": sorted(owed),
            "generator": generator.state_dict(),
            "discriminator": discriminator.state_dict(),
            "ema": ema.network.state_dict(),
            "hooks": {name: dict(hook.state_dict()) for name, hook in game.hooks},
            "generator_optimizer": generator_optimizer.state_dict(),
            "discriminator_optimizer": discriminator_optimizer.state_dict(),
            "rng": draws.get_state(),
            "rng_device": device.type,
            "torch_rng": torch.get_rng_state(),
            "device_rng": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        }

    # Begin with the networks of another run, unless this one has a checkpoint of its own.
    inherited, is_new = None, not checkpoint_files(run)
    if is_new:

        def preparing(what: str, done: int, total: int) -> None:
            if on_progress:
                doing = f"{what}: {done:,} of {total:,}"
                on_progress(Progress(0, options.total_images, 0.0, {}, doing=doing))

        discriminator.learn(dataset, device, preparing)
    if config.start and is_new:
        optimizers = {"generator": generator_optimizer, "discriminator": discriminator_optimizer}
        inherited = inherit(config, game, ema.network, dataset.classes, optimizers)
        ancestry = asdict(inherited)

    if rank() == 0:
        run.mkdir(parents=True, exist_ok=True)
    with (
        only_writer(run) if rank() == 0 else nullcontext(),
        StatsLog(run) as stats_log,
        Trackers(kinds, run, config.as_dict()) as trackers,
    ):
        if rank() == 0:
            claim_run_folder(run, config, dataset, allow=allow)
        # Go on from the newest checkpoint, if there is one.
        recorder = Recorder(run, dataset, options, device, stats_log, trackers, on_progress)

        def save() -> Path:
            weights = float(sum(p.sum() for p in ema.network.parameters()))
            recorder.check_finite(game.images_seen)
            recorder.check_finite(game.images_seen, {"a weight": weights})
            return save_checkpoint(run, state(), keep=options.keep_checkpoints)

        def look_up() -> None:
            """What measuring is interrupted for, now and then."""
            if should_save():
                recorder.tell(f"saved {save()}")
            if should_stop():
                raise StoppedError

        def settle() -> None:
            """Picture and measure what is owed."""
            nonlocal best_fid
            if "picture" in owed:
                recorder.picture(ema.network, game.images_seen)
                owed.remove("picture")
            if "measurement" in owed:
                fid = recorder.measure(ema.network, game.images_seen, look_up)
                owed.remove("measurement")
                if fid < best_fid:
                    best_fid = fid
                    save_best(run, state())

        if files := checkpoint_files(run):
            saved = load_checkpoint(files[-1])
            game.images_seen, batches.position = saved["images_seen"], saved["position"]
            game.rounds = game.images_seen // (options.batch_size * options.discriminator_steps)
            ancestry = saved.get("ancestry")
            owed = set(saved.get("owed", [])) if rank() == 0 else set()
            # Earlier versions asked for all classes alike: such a FID compares with none of now.
            if not game.num_classes or saved.get("best_fid_classes") == "data":
                best_fid = math.inf if saved["best_fid"] is None else saved["best_fid"]
            generator.load_state_dict(saved["generator"])
            discriminator.load_state_dict(saved["discriminator"])
            ema.network.load_state_dict(saved["ema"])
            for name, hook in game.hooks:
                hook.load_state_dict(saved["hooks"][name])
                hook.to(device)
            load_optimizer(generator_optimizer, saved["generator_optimizer"])
            load_optimizer(discriminator_optimizer, saved["discriminator_optimizer"])
            if saved["rng_device"] == device.type:
                draws.set_state(saved["rng"])
                if saved["device_rng"] is not None:
                    torch.cuda.set_rng_state(saved["device_rng"], device)
            else:  # the state of another kind of device means nothing here
                draws.restart(options.seed + game.images_seen)
            torch.set_rng_state(saved["torch_rng"])
            log.info("%s: going on from %d images", run, game.images_seen)
        elif rank() == 0:
            sheet = Sheet(dataset, game.num_classes)
            (run / "samples").mkdir(parents=True, exist_ok=True)
            save_png(run / "samples" / "real.png", sheet.picture(sheet.real))
            if inherited:
                note(run, 0, {"begins_with": ancestry})
                recorder.tell(inherited.words())
        if rank() > 0:  # dropout masks and noise of its own
            torch.manual_seed(options.seed + game.images_seen + rank())
        barrier()  # nobody writes before everybody has read
        recorder.start(game.images_seen, lacking=bool(owed))
        any_process, stopped = AnyProcess(device), False
        if owed:  # the stop came before it was there
            with alone():
                try:
                    settle()
                    save()
                except StoppedError:
                    stopped = not several_processes()
                recorder.write(game.images_seen)

        if on_start:
            on_start(game)
        # Train, counting the real images that D has seen.
        while game.images_seen < options.total_images and not stopped:
            factor = learning_rate_factor(config, game.images_seen)
            set_learning_rate(generator_optimizer, config.generator_optimizer, factor)
            set_learning_rate(discriminator_optimizer, config.discriminator_optimizer, factor)

            # D: tell real images from generated ones.
            for _ in range(options.discriminator_steps):
                parts = microbatches(*batches.next(), game, options)
                discriminator_optimizer.zero_grad()
                real_logits, fake_logits = [], []
                for real, y in parts:
                    z = draws.latents(generator, len(real), truncation=options.truncation)
                    with torch.no_grad(), autocast:
                        fake = generator(z, y).float()
                    with autocast:
                        loss, step = discriminator_loss(real, fake, y, z)
                    torch.autograd.backward(loss / len(parts))
                    recorder.add(loss_d=loss)
                    real_logits.append(step.real.logits.detach())
                    fake_logits.append(step.fake.logits.detach())
                average_gradients(discriminator)
                discriminator_optimizer.step()
                logits = torch.cat(real_logits), torch.cat(fake_logits)
                for _, hook in game.hooks:
                    hook.after_discriminator_step(game, *logits)
                game.images_seen += options.batch_size
                recorder.add(gradient_norm_d=gradient_norm(discriminator))
                recorder.add(**game_figures(game.objective, *logits))

            # G: generate images that D takes for real.
            discriminator.requires_grad_(False)
            generator_optimizer.zero_grad()
            for real, y in parts:
                z = draws.latents(generator, len(real), truncation=options.truncation)
                with autocast:
                    loss = generator_loss(z, y, real)
                torch.autograd.backward(loss / len(parts))
                recorder.add(loss_g=loss)
            average_gradients(generator)
            generator_optimizer.step()
            for weight in trainable:  # the others are frozen
                weight.requires_grad_(True)
            recorder.add(gradient_norm_g=gradient_norm(generator))
            ema.update(generator, batch_size=options.batch_size, images_seen=game.images_seen)
            game.rounds += 1

            # Report, picture, measure and save when another so many images have been seen. Who is
            # to stop saves at once, and owes the rest.
            seen, step_images = game.images_seen, options.batch_size * options.discriminator_steps
            due = partial(is_due, images_seen=seen, step_images=step_images)
            stopped = any_process(should_stop())
            if rank() > 0:
                continue
            last = seen >= options.total_images
            if last or due(options.sample_kimg):
                owed.add("picture")
            if options.eval_kimg and (last or due(options.eval_kimg)):
                owed.add("measurement")
            asked = should_save()
            saves = last or stopped or asked or due(options.checkpoint_kimg)
            with alone():  # the other processes are at their next step
                if options.standing_batches and (owed or saves):
                    standing_statistics(
                        ema.network,
                        num_batches=options.standing_batches,
                        truncation=options.truncation,
                        seed=options.seed,
                    )
                if last or stopped or due(options.log_kimg):
                    recorder.report(
                        seen, {k: v for _, h in game.hooks for k, v in h.stats().items()}
                    )
                if not stopped:
                    try:
                        settle()
                    except StoppedError:  # several processes agree on it in the next step
                        stopped, saves = not several_processes(), True
                recorder.write(seen)
                if saves:
                    path = save()
                    if asked:
                        recorder.tell(f"saved {path}")
                recorder.look(seen)
        barrier()
        finished = game.images_seen >= options.total_images and not owed
        if rank() == 0:
            recorder.end(finished=finished)
    return Outcome(run, checkpoint_files(run)[-1], game.images_seen, finished)


def losses(game: Game, options: TrainConfig) -> tuple[DiscriminatorLoss, GeneratorLoss]:
    """The game's two losses, compiled if the recipe says so.

    Raises:
        ConfigError: a penalty differentiates D's gradient, which compiled code cannot; or there
            is no compiler.
    """
    if options.compile == "off":
        return game.discriminator_loss, game.generator_loss
    for name, hook in game.hooks:
        if hook.differentiates_twice:
            raise ConfigError(
                f"[train] compile: {name} differentiates a gradient, and torch.compile cannot"
                " differentiate twice; use compile = 'off'"
            )
    on_cpu = game.draws.device.type == "cpu"
    if on_cpu and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        raise ConfigError(
            "[train] compile: on a CPU it needs a C++ compiler, and found none; install g++, or use"
            " compile = 'off'"
        )
    mode = "reduce-overhead" if options.compile == "cuda_graphs" else "default"
    return (
        torch.compile(game.discriminator_loss, mode=mode),
        torch.compile(game.generator_loss, mode=mode),
    )


def microbatches(
    real: Tensor, y: Tensor | None, game: Game, options: TrainConfig
) -> list[tuple[Tensor, Tensor | None]]:
    """What goes through a network at once: this process's images (n, C, H, W) and labels (n,)."""
    size = options.microbatch_size or len(real)
    parts = torch.split(real, size)
    if y is None or not game.num_classes:
        return [(part, None) for part in parts]
    return list(zip(parts, torch.split(y, size), strict=True))


def check_shares(config: Config, game: Game) -> None:
    """Raise a ConfigError if the batch cannot be shared out, or its parts are too small."""
    options, processes = config.train, world_size()
    share = options.batch_size // processes
    if share * processes != options.batch_size:
        raise ConfigError(
            f"{config.where} [train] batch_size: found {options.batch_size}; expected a multiple"
            f" of the {processes} processes"
        )
    if options.microbatch_size and share % options.microbatch_size:
        raise ConfigError(
            f"{config.where} [train] microbatch_size: found {options.microbatch_size}; expected a"
            f" divisor of {share}, which is the batch of one process"
        )
    if (options.microbatch_size or share) == 1:
        layer = batch_norm_of(game.generator) or batch_norm_of(game.discriminator)
        if layer is not None:
            raise ConfigError(
                f"{config.where} [train] batch_size: one image at a time, and {layer} is a batch"
                " norm; it needs two at least"
            )


def pick_device(name: str, *, where: str) -> torch.device:
    """The device of [train] device; one that was asked for and is missing is an error.

    Under torchrun each process of a machine takes the GPU of its number.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device("cuda", local_rank()) if name == "cuda" else torch.device(name)
    if name.startswith("cuda:") and several_processes():
        raise ConfigError(
            f"{where} [train] device: {name!r} is one GPU, and several processes are to train; use"
            " 'cuda', and each takes the GPU of its number"
        )
    if device.type == "cuda" and device.index >= torch.cuda.device_count():
        raise ConfigError(
            f"{where} [train] device: '{device}' is not there; this torch {torch.__version__}"
            f" sees {torch.cuda.device_count()} CUDA devices; use 'cpu' or 'auto'"
        )
    return device


def set_learning_rate(optimizer: torch.optim.Optimizer, part: Part, factor: float) -> None:
    """The recipe's rate times the schedule's factor."""
    for group in optimizer.param_groups:
        group["lr"] = part.options["learning_rate"] * factor


def is_due(every_kimg: float, *, images_seen: int, step_images: int) -> bool:
    """Has this step crossed a multiple of every_kimg? Never, if that is 0."""
    every = 1000 * every_kimg
    return every > 0 and images_seen // every != (images_seen - step_images) // every
