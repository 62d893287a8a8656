"""The day there is a card: all that has never run on one, by one command; see gpu_day.md.

    python benchmarks/gpu_day.py --device cuda --minutes 9 -o FOLDER [--data FOLDER]
        [--stage NAME ...] [--from OLD.json] [--retry] [--cache FOLDER]

Each stage is a process of its own with a share of the time. Every row is kept as it comes, in
gpu_day.json; the same command again goes on where this one ended, however it ended. --device cpu is
the same in small.
"""

import argparse
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from gpu_day import STAGES  # noqa: E402
from gpu_day.results import Results  # noqa: E402

from ganinfer.errors import GanError, RequestError  # noqa: E402

STAGE = "from gpu_day.day import main; main()"
PAGE_S = 5  # kept for the page
MOST_LOG = 4_000_000  # bytes


class Worker:
    """A stage's process, and what it tells."""

    def __init__(self, told: dict[str, Any], log: Path) -> None:
        reading, writing = os.pipe()
        paths = [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        if told["device"] == "cpu":  # threads of networks so small would wait for each other
            environment.setdefault("OMP_NUM_THREADS", "1")
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-c", STAGE, json.dumps(told | {"channel": writing})],
                stdin=subprocess.PIPE,  # it ends when this closes
                stdout=out,
                stderr=out,
                pass_fds=[writing],
                start_new_session=True,
                env=environment,
            )
        os.close(writing)
        self.events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, args=(reading,), daemon=True)
        self._reader.start()

    def _read(self, reading: int) -> None:
        with os.fdopen(reading) as channel:
            for line in channel:
                if line.endswith("\n"):  # not one that was cut off
                    self.events.put(json.loads(line))
        self.events.put(None)

    def kill(self) -> None:
        """End it and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # a driver may hold it for ever
            self.process.wait(10)


def follow(worker: Worker, results: Results, stage: str, end: float) -> bool:
    """Take in rows until the process ends or `end`, of time.monotonic().

    Returns:
        Is the stage to be started again, since one of its rows took the process with it?
    """
    running, row_end = "", float("inf")
    while True:
        now = time.monotonic()
        if now > end:
            return False
        if now > row_end:
            died(results, stage, running, "did not end in the time of a row")
            return True
        try:
            event = worker.events.get(timeout=min(end, row_end, now + 1) - now)
        except queue.Empty:
            if worker.process.poll() is not None:
                worker.kill()  # what it started may hold the pipe open
            continue
        if event is None:
            break
        if "begin" in event:
            running, row_end = event["begin"], now + event["limit_s"]
        elif "row" in event:
            name = event.pop("row")
            results.put(stage, name, event)
            print(f"  {name}: {event['status']}" + (f": {event['why']}" * bool(event["why"])))
            if event["status"] != "partial":
                running, row_end = "", float("inf")
        else:
            results.complete(stage)
            return False
    try:
        code = worker.process.wait(20)
    except subprocess.TimeoutExpired:
        return False  # it hangs as it ends, and has nothing more to tell
    if code == 0:
        return False
    why = f"its process ended by signal {-code}" if code < 0 else f"its process ended with {code}"
    if code == -signal.SIGKILL:
        why += " (kill -9, or the machine's memory was used up)"
    died(results, stage, running or "the stage itself", why)
    return bool(running)


def died(results: Results, stage: str, row: str, why: str) -> None:
    results.died(stage, row, why)
    print(f"  {row}: died: {why}")


def run_stage(stage: str, results: Results, options: argparse.Namespace, seconds: float) -> None:
    """Run what is not there yet of a stage; a row that takes the process with it costs itself."""
    end = time.monotonic() + seconds
    results.rows(stage).pop("the stage itself", None)
    again, begun = True, set[str]()
    while again and time.monotonic() < end - 3:
        told = {
            "stage": stage,
            "device": options.device,
            "cache": str(options.cache),
            "data": str(options.data) if options.data else None,
            "deadline": time.time() + end - time.monotonic() - 1,
            "finished": [*results.finished(stage), *begun],
        }
        worker = Worker(told, options.output / "gpu_day.log")
        try:
            again = follow(worker, results, stage, end)
        finally:
            worker.kill()
        # What died in this call is tried once more in the next one, not now.
        begun |= {name for name, row in results.rows(stage).items() if row["status"] == "died"}


def write_page(results: Results, folder: Path) -> None:
    try:
        from gpu_day.page import write
    except ModuleNotFoundError as error:
        print(f"no page: {error.name} is not installed", file=sys.stderr)
        return
    write(results.tree, folder / "gpu_day.html")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], required=True)
    parser.add_argument("--minutes", type=float, required=True, help="of this call, at most")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the results")
    parser.add_argument(
        "--stage", action="append", choices=list(STAGES), help="these alone, for all of the time"
    )
    parser.add_argument("--data", type=Path, help="folder of mnist and cifar10, prepared or npz")
    parser.add_argument("--from", dest="older", type=Path, help="gpu_day.json of another machine")
    parser.add_argument("--retry", action="store_true", help="run again what failed or was skipped")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser.add_argument(
        "--cache", type=Path, default=home / "ganpipe-gpu-day", help="folder of runs and bundles"
    )
    return parser.parse_args(arguments)


def prepare_folders(options: argparse.Namespace) -> None:
    """Make the folders; a log that is long enough begins anew."""
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        options.cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"{error.filename}: cannot be made ({error.strerror})") from None
    if options.data and not options.data.is_dir():
        raise RequestError(f"--data {options.data}: expected a folder")
    for left in options.output.glob(".gpu_day.*"):  # of a command that was killed as it wrote
        left.unlink()
    log = options.output / "gpu_day.log"
    if log.exists() and log.stat().st_size > MOST_LOG:
        log.unlink()


def day(options: argparse.Namespace) -> Results:
    """All stages, in their order."""
    end = time.monotonic() + 60 * options.minutes - PAGE_S
    prepare_folders(options)
    results = Results.open(options.output / "gpu_day.json", options.device, options.older)
    if options.retry:
        results.forget_unproven()
    results.save()
    for stage in options.stage or STAGES:
        left = end - time.monotonic()
        share = STAGES[stage][options.device == "cpu"]
        seconds = left if options.stage else min(left, share)
        if results.has_all(stage):
            continue
        if seconds < 5:
            print(f"{stage}: no time left")
            continue
        print(f"{stage}: {seconds:.0f} s", flush=True)
        run_stage(stage, results, options, seconds)
        write_page(results, options.output)
    return results


def main() -> None:
    options = parse()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        results = day(options)
    except GanError as error:
        raise SystemExit(f"gpu_day: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    bad = results.count("failed", "died")
    print(f"{results.count('ok')} rows ok, {bad} not, {results.count('skipped')} skipped")
    if left := [stage for stage in STAGES if not results.has_all(stage)]:
        print(f"not complete: {', '.join(left)}; the same command goes on with them")
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
