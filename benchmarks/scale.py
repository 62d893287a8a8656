"""A billion images by a thousand workers, on paper; and what the paper rests on, measured.

    python benchmarks/scale.py digits.gan [--shards 100000] [-o benchmarks/results/scale-<m>.json]

Measured: a plan of so many shards of one image each, written, looked at and finished here by one
process, so that what there is to say of a shard costs and nothing else does; and images/s of shards
of the usual size. Simulated, event by event: workers who each write every thousandth shard. Some
are slow; each dies now and then, is started again elsewhere after a while, looks at its records and
goes on; some parts are started twice. Told are the hours, what was done twice, and the bytes.
"""

import argparse
import heapq
import json
import platform
import random
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from road import processor

from ganinfer import Sampler
from ganinfer.shards import INDEX, plan, write_shards
from ganinfer.shards.records import RECORDS

USUAL = 10_000  # images of a shard


@dataclass(frozen=True)
class Costs:
    """Of one process here.

    Attributes:
        open_s: until a Sampler is ready.
        images_per_s: written in shards of the usual size.
        shard_s: a shard of one image and its record, written and flushed.
        look_s: a record, looked at. finish_s: a shard, in the index.
    """

    open_s: float
    images_per_s: float
    shard_s: float
    look_s: float
    finish_s: float
    record_bytes: float
    index_bytes: float


@dataclass(frozen=True)
class World:
    """What happens to workers.

    Attributes:
        mean_life_s: of a process, until it dies. restart_s: until another takes its part.
        slow: the share of hosts that are slow, and their speed.
        twice: the share of parts that are started twice.
    """

    images: int = 1_000_000_000
    workers: int = 1000
    mean_life_s: float = 2 * 3600.0
    restart_s: float = 60.0
    slow: tuple[float, float] = (0.05, 0.3)
    twice: float = 0.01


def measured(bundle: Path, num_shards: int, folder: Path) -> Costs:
    start = time.perf_counter()
    with Sampler(bundle) as sampler:
        open_s = time.perf_counter() - start
        n = 10 * USUAL
        _, usual_s = timed(lambda: write_shards(sampler, n, folder / "usual"))
        small, place = plan(sampler, num_shards, shard_size=1), folder / "small"
        small.claim(place)
        numbers = range(num_shards)
        _, write_s = timed(lambda: sum(1 for _ in small.write_each(numbers, place)))
        found, look_s = timed(lambda: small.standing(place))
        assert not found.missing
        _, finish_s = timed(lambda: small.finish(place))
        records = sum(file.stat().st_size for file in (place / RECORDS).iterdir())
        return Costs(
            open_s=open_s,
            images_per_s=n / usual_s,
            shard_s=write_s / num_shards,
            look_s=look_s / num_shards,
            finish_s=finish_s / num_shards,
            record_bytes=records / num_shards,
            index_bytes=(place / INDEX).stat().st_size / num_shards,
        )


def timed(call):
    start = time.perf_counter()
    found = call()
    return found, time.perf_counter() - start


def simulated(costs: Costs, world: World, seed: int) -> dict[str, float]:
    rng = random.Random(seed)
    num_shards = -(-world.images // USUAL)
    done = [False] * num_shards
    drawn = died = 0
    parts = list(range(world.workers))
    parts += rng.sample(parts, round(world.twice * world.workers))
    events = [(0.0, order, part) for order, part in enumerate(parts)]  # a process begins
    end, order = 0.0, len(events)
    while events:
        now, _, part = heapq.heappop(events)
        share, speed = world.slow
        shard_s = USUAL / costs.images_per_s / (speed if rng.random() < share else 1.0)
        dies = now + rng.expovariate(1 / world.mean_life_s)
        numbers = range(part, num_shards, world.workers)
        now += costs.open_s + costs.look_s * len(numbers)
        # As `write_missing` has it: what is missing when it begins.
        for number in [number for number in numbers if not done[number]]:
            now += shard_s
            if now > dies:
                drawn += USUAL * (1 - (now - dies) / shard_s)
                died += 1
                order += 1
                heapq.heappush(events, (dies + world.restart_s, order, part))
                break
            drawn += USUAL
            done[number] = True
            end = max(end, now)
    assert all(done)
    return {
        "hours": (end + costs.finish_s * num_shards) / 3600,
        "hours_if_all_lived_and_were_fast": world.images
        / world.workers
        / costs.images_per_s
        / 3600,
        "deaths": died,
        "drawn_twice_percent": 100 * (drawn / world.images - 1),
        "records_mb": costs.record_bytes * num_shards / 1e6,
        "index_mb": costs.index_bytes * num_shards / 1e6,
        "finish_s": costs.finish_s * num_shards,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ganpipe-scale-"))
    try:
        costs = measured(options.bundle, options.shards, folder)
    finally:
        shutil.rmtree(folder)
    large = replace(costs, images_per_s=50.0)  # of a network of 128 pixels on such a machine
    worlds = {
        "these images; all live": (costs, World(mean_life_s=1e9, slow=(0.0, 1.0), twice=0.0)),
        "these images": (costs, World()),
        "50 images/s": (large, World()),
    }
    result = {
        "processor": processor(),
        "python": platform.python_version(),
        "measured_shards": options.shards,
        "measured": asdict(costs),
        "simulated": {
            name: {**asdict(world), **simulated(costs, world, seed=0)}
            for name, (costs, world) in worlds.items()
        },
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
