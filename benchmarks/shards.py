"""Many images to disk: killed twice on the way, in constant memory, and the same bytes at the end.

    python benchmarks/shards.py digits.gan -n 1000000 -o benchmarks/results/shards-<machine>.json

One folder is filled by `gan sample`, killed with SIGKILL at a third and at two thirds and called
again; another by a process that nobody disturbs, whose peak memory is read from /proc at 10 % and
at the end, and whose images/s are compared with those of sampling alone before and after it.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from road import processor

from ganinfer.files import sha256_file

GAN = "from ganexport.cli.gan import main; main()"
WRITE = """
import sys, time
from pathlib import Path
from ganinfer import Sampler
from ganinfer.shards import write_shards
with Sampler(sys.argv[1]) as sampler:
    start = time.perf_counter()
    write_shards(sampler, int(sys.argv[2]), Path(sys.argv[3]), format=sys.argv[4])
    print(time.perf_counter() - start)
"""
SAMPLE = """
import sys, time
from ganinfer import Sampler
with Sampler(sys.argv[1]) as sampler:
    start = time.perf_counter()
    for images in sampler.stream(int(sys.argv[2]), 128):
        pass
    print(time.perf_counter() - start)
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def seconds(process: subprocess.Popen[str]) -> float:
    """What a finished process printed."""
    output, _ = process.communicate()
    assert process.returncode == 0
    return float(output)


def num_shards(folder: Path) -> int:
    return len(list(folder.glob("shard-*")))


def peak_mb(process: subprocess.Popen[str]) -> float | None:
    """The most memory that a process has held so far; None once it has ended."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    peaks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return round(int(peaks[0]) / 1024, 1) if peaks else None


def killed_twice(bundle: Path, n: int, folder: Path, kind: str) -> list[int]:
    """Shards that were finished at each kill; then the call that finishes them all."""
    command = ("sample", bundle, "-n", n, "-o", folder, "--format", kind)
    total = -(-n // 10_000)
    finished = []
    for part in (1 / 3, 2 / 3):
        process = start(GAN, *command)
        while num_shards(folder) < part * total:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        finished.append(num_shards(folder))
    process = start(GAN, *command)
    process.communicate()
    assert process.returncode == 0
    return finished


def undisturbed(bundle: Path, n: int, folder: Path, kind: str) -> tuple[float, float, float]:
    """Seconds; peak memory when a tenth was written, and at the end."""
    process = start(WRITE, bundle, n, folder, kind)
    early, late = None, 0.0
    while process.poll() is None and (peak := peak_mb(process)) is not None:
        late = peak
        if early is None and num_shards(folder) >= n / 100_000:
            early = peak
        time.sleep(0.02)
    assert early is not None
    return seconds(process), early, late


def digests(folder: Path) -> dict[str, str]:
    """Of the shards, and of what is told of them all."""
    return {path.name: sha256_file(path) for path in sorted(folder.glob("shard*"))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("-n", type=int, default=1_000_000)
    parser.add_argument("--format", default="tar", choices=["tar", "npz"])
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    bundle, n, kind = options.bundle, options.n, options.format

    with tempfile.TemporaryDirectory() as temporary:
        disturbed, calm = Path(temporary, "killed"), Path(temporary, "calm")
        finished = killed_twice(bundle, n, disturbed, kind)
        before = seconds(start(SAMPLE, bundle, n // 4))
        writing, early, late = undisturbed(bundle, n, calm, kind)
        after = seconds(start(SAMPLE, bundle, n // 4))
        expected, found = digests(calm), digests(disturbed)
        differing = [name for name, _ in sorted(expected.items() ^ found.items())]
        shards, size = num_shards(calm), sum(path.stat().st_size for path in calm.glob("shard-*"))
    sampling_rate, writing_rate = 2 * (n // 4) / (before + after), n / writing
    constant = late <= 1.05 * early + 5
    result = {
        "processor": processor(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "images": n,
        "format": kind,
        "bytes": size,
        "shards": shards,
        "shards_finished_at_kills": finished,
        "files_that_differ": differing,
        "peak_mb_at_10_percent": early,
        "peak_mb_at_end": late,
        "sampling_images_per_s": round(sampling_rate),
        "writing_images_per_s": round(writing_rate),
        "writing_over_sampling": round(writing_rate / sampling_rate, 3),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")
    good = constant and not differing
    print("ok" if good else "NOT ok")
    sys.exit(not good)


if __name__ == "__main__":
    main()
