"""`gan serve` against `Sampler.asample` in one's own process, and against a server written by hand.

    python benchmarks/serving.py [BUNDLE ...] [--by-hand PYTHON] [--wrk] [-o FILE.json]

Single images, raw and as PNG, and raw ones 64 a request; for 1, 8, 32 and 128 callers. Without a
bundle it makes two, untrained: digits' generator, and a DCGAN of 128 pixels. PYTHON is one that has
FastAPI, for benchmarks/serving_by_hand.py; without it that column is left out:

    python -m venv V && V/bin/pip install fastapi 'uvicorn[standard]' onnxruntime pillow

Each figure is of a client in a process of its own, the same one for all: `ganinfer.bench.served`,
on uvloop where there is one. Who is compared takes turns in each round, and the median of the
rounds is told. Clients and servers share this machine. -o writes a table beside it, too: FILE.md.
"""

import argparse
import asyncio
import functools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from server_process import Server, gan_serve, started

from ganinfer import Sampler
from ganinfer.bench.connection import Connection
from ganinfer.bench.served import CALLERS, Call, press
from ganinfer.bundle.archive import Bundle
from ganinfer.host.machine import this_host
from ganinfer.open_inference.over_http import packed_request

HERE = Path(__file__).parent
KINDS = {"raw": 1, "png": 1, "raw x64": 64}
MOST = 32 * 64  # images that are asked for at once
RUN_BY: dict[str, Any] = {"backend": "onnxruntime", "precision": "fp32"}  # as by hand
OURS, IN_PROCESS, BY_HAND = "gan serve", "in process", "by hand"
Figures = dict[str, dict[int, dict[str, float]]]  # kind -> callers -> of `Served`


# The client.


def of_server(connection: Connection, target: dict[str, Any], kind: str) -> Call:
    """One caller of a server, who checks how long each answer is."""
    n, image_bytes, hand = KINDS[kind], target["image_bytes"], target["who"] == BY_HAND
    infer = f"/v2/models/{target['model']}/infer"

    async def call(seed: int) -> None:
        if hand:
            path = f"/image.png?seed={seed}" if kind == "png" else f"/images?seed={seed}&n={n}"
            answer = await connection.ask("GET", path)
        else:
            seeds = np.arange(seed, seed + n, dtype="<u8")
            output = "png" if kind == "png" else "images"
            body, headers = packed_request([("seed", "UINT64", seeds)], [n, 1], output)
            answer = await connection.ask("POST", infer, body, headers)
        assert answer.status == 200, answer.body
        assert kind == "png" or len(answer.body) >= n * image_bytes

    return call


async def of_servers(target: dict[str, Any], kind: str, callers: int, seconds: float) -> Any:
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(Connection(target["url"])) for _ in range(callers)
        ]
        calls = [of_server(connection, target, kind) for connection in opened]
        return await press(calls, KINDS[kind], seconds)


async def in_process(sampler: Sampler, kind: str, callers: int, seconds: float) -> Any:
    n = KINDS[kind]

    async def call(seed: int) -> None:
        await sampler.asample(n, seed=seed)

    return await press([call] * callers, n, seconds)


def loop() -> Any:
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def client(target: dict[str, Any], callers: int, seconds: float) -> None:
    """What a process of the client does, for every kind of request."""
    found: dict[str, Any] = {}
    with asyncio.Runner(loop_factory=loop) as runner, ExitStack() as stack:
        ask = functools.partial(of_servers, target)
        kinds = [kind for kind in KINDS if kind != "png" or target["who"] != IN_PROCESS]
        kinds = [kind for kind in kinds if callers * KINDS[kind] <= MOST]
        if target["who"] == IN_PROCESS:
            sampler = stack.enter_context(Sampler(target["bundle"], **target["opening"]))
            ask = functools.partial(in_process, sampler)
        for kind in kinds:
            found[kind] = asdict(runner.run(ask(kind, callers, seconds)))
    print(json.dumps(found))


def measured(target: dict[str, Any], callers: int, seconds: float) -> dict[str, Any]:
    asked = json.dumps({"target": target, "callers": callers, "seconds": seconds})
    done = subprocess.run(
        [sys.executable, __file__, "--client", asked], stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# The servers.


def serve_by_hand(python: str, bundle: Path, folder: Path) -> AbstractContextManager[Server]:
    from ganexport.extraction.extract import extracted
    from ganexport.extraction.options import ExtractOptions

    with Bundle(bundle) as opened:
        model = opened.manifest.model
        graph = extracted(opened, ExtractOptions())
    (folder / "model.onnx").write_bytes(graph)
    env = os.environ | {"MODEL": str(folder / "model.onnx"), "Z_DIM": str(model.z_dim)}
    env["NUM_CLASSES"] = str(len(model.classes))
    env.pop("PYTHONPATH", None)  # its packages are its own
    command = [python, "-m", "uvicorn", "serving_by_hand:app", "--port", "0", "--no-access-log"]
    return started(command, folder / "by_hand.log", cwd=HERE, env=env)


def has_fastapi(python: str) -> bool:
    """Whether it, and what else the server by hand needs, is there."""
    code = "import fastapi, onnxruntime, uvicorn, PIL"
    return subprocess.run([python, "-c", code], capture_output=True).returncode == 0


def by_wrk(url: str, path: str, callers: int, seconds: float) -> float:
    """Requests/s of a client that costs little."""
    command = ["wrk", "-t1", f"-c{callers}", f"-d{max(1, round(seconds))}s", url + path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if found is None or "Non-2xx" in done.stdout:
        raise SystemExit(done.stdout)
    return float(found[1])


# What is compared.


def of_bundle(bundle: Path, given: argparse.Namespace) -> dict[str, Any]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        opening = RUN_BY | ({"threads": given.threads} if given.threads else {})
        with Sampler(bundle, **opening) as sampler:
            info = dict(sampler.info)
        shape = info["shape"]
        flags = [text for name, value in opening.items() for text in (f"--{name}", value)]
        common = {
            "bundle": str(bundle),
            "model": "model",
            "image_bytes": int(np.prod(shape)),
            "opening": opening,
        }
        targets = [{"who": IN_PROCESS, **common}]
        url = stack.enter_context(
            gan_serve(folder / "serve.log", f"model={bundle}", "--timeout-s", 300, *flags)
        ).url
        targets.append({"who": OURS, "url": url, **common})
        if given.by_hand is not None:
            hand = stack.enter_context(serve_by_hand(given.by_hand, bundle, folder)).url
            targets.append({"who": BY_HAND, "url": hand, **common})
        rounds: dict[str, list[Any]] = defaultdict(list)
        for _ in range(given.rounds):
            for callers in CALLERS:
                for target in targets:
                    found = measured(target, callers, given.seconds)
                    for kind, figures in found.items():
                        rounds[f"{target['who']}/{kind}/{callers}"].append(figures)
        found = {"shape": shape, "backend": info["backend"], "figures": medians(rounds)}
        found["ratios"] = ratios(found["figures"])
        if given.wrk:
            found["wrk"] = {
                OURS: wrk_figures(url, "/v1/model/image.png?seed=7", given.seconds),
                **(
                    {BY_HAND: wrk_figures(hand, "/image.png?seed=7", given.seconds)}
                    if given.by_hand
                    else {}
                ),
            }
    return found


def wrk_figures(url: str, path: str, seconds: float) -> dict[int, float]:
    return {callers: by_wrk(url, path, callers, seconds) for callers in CALLERS}


def medians(rounds: dict[str, list[dict[str, float]]]) -> dict[str, Figures]:
    """Who -> kind -> callers -> figures."""
    found: dict[str, Figures] = defaultdict(lambda: defaultdict(dict))
    for key, all_of_one in rounds.items():
        who, kind, callers = key.split("/")
        names = all_of_one[0]
        found[who][kind][int(callers)] = {
            name: statistics.median(one[name] for one in all_of_one) for name in names
        }
    return found


def ratios(figures: dict[str, Figures]) -> dict[str, Any]:
    """What the bars are about."""
    ours, here = figures[OURS], figures[IN_PROCESS]

    def over(other: Figures, kind: str, kind_there: str) -> dict[int, float]:
        return {
            n: figures["images_per_s"] / other[kind_there][n]["images_per_s"]
            for n, figures in ours[kind].items()
        }

    added_ms = ours["raw"][1]["p50_ms"] - here["raw"][1]["p50_ms"]
    found: dict[str, Any] = {
        "added ms at 1 caller": added_ms,
        "over in process": {
            kind: over(here, kind, "raw" if kind == "png" else kind) for kind in KINDS
        },
    }
    held = {
        "raw x64 >= 0.9 of in process at 8": found["over in process"]["raw x64"][8] >= 0.9,
        "raw >= 0.6 of in process at 8": found["over in process"]["raw"][8] >= 0.6,
        "at most 0.25 ms added at 1": added_ms <= 0.25,
    }
    if BY_HAND in figures:
        found["over by hand"] = {kind: over(figures[BY_HAND], kind, kind) for kind in KINDS}
        for n in (8, 32):
            held[f"ahead of by hand at {n}"] = min(
                found["over by hand"][kind][n] for kind in KINDS
            ) > 1  # fmt: skip
    return found | {"held": held}


def table(found: dict[str, Any]) -> str:
    """Markdown."""
    lines = [f"`{found['command']}`", "", found["host"], ""]
    for name, one in found["bundles"].items():
        lines += [f"{name}: {one['shape']}, {one['backend']}; p50 and p99 in ms, images/s", ""]
        lines += ["| | " + " | ".join(f"{n} callers" for n in CALLERS) + " |"]
        lines += ["| --- |" + " --- |" * len(CALLERS)]
        for who, figures in one["figures"].items():
            for kind, by_callers in figures.items():
                cells = [
                    f"{s['p50_ms']:.2f}, {s['p99_ms']:.2f}: {s['images_per_s']:,.0f}"
                    for s in by_callers.values()
                ]
                lines.append(f"| {who}, {kind} | " + " | ".join(cells) + " |")
        for who, by_callers in one.get("wrk", {}).items():
            cells = [f"{rate:,.0f}" for rate in by_callers.values()]
            lines.append(f"| {who}, png, by wrk | " + " | ".join(cells) + " |")
        for other in ("in process", "by hand"):
            for kind, by_callers in one["ratios"].get(f"over {other}", {}).items():
                cells = [f"{ratio:.2f}x" for ratio in by_callers.values()]
                lines.append(f"| {kind}, over {other} | " + " | ".join(cells) + " |")
        lines += [
            "",
            f"{one['ratios']['added ms at 1 caller']:.2f} ms are added at one caller.",
            "",
        ]
        for bar, held in one["ratios"]["held"].items():
            lines.append(f"- {bar}: {'yes' if held else 'no'}")
        lines.append("")
    return "\n".join(lines)


def untrained(folder: Path) -> list[Path]:
    """Two bundles: of digits' generator, and of 128 pixels."""
    import torch

    from ganexport.options import ExportOptions
    from ganexport.pipeline import export
    from ganexport.subjects.spec import Spec
    from gantrain.models import dcgan
    from gantrain.training.standing import standing_statistics

    networks = {
        "digits": dcgan.Generator(16, 1, 10, z_dim=32, width=32),
        "dcgan-128": dcgan.Generator(128, 3, 0, width=32),
    }
    for name, network in networks.items():
        torch.manual_seed(0)
        standing_statistics(network, num_batches=8)
        classes = [str(k) for k in range(network.num_classes)]
        options = ExportOptions(precisions=["fp32"], num_images=1000)
        export(network, Spec(network.z_dim, classes), folder / f"{name}.gan", options)
    return [folder / f"{name}.gan" for name in networks]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", type=Path, nargs="*")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--by-hand", metavar="PYTHON", default=sys.executable)
    parser.add_argument("--wrk", action="store_true", help="also ask for PNGs by wrk")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--client", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help="of a Sampler; all by default")
    given = parser.parse_args()
    if given.client:
        client(**json.loads(given.client))
        return
    if not has_fastapi(given.by_hand):
        print(f"{given.by_hand} has no fastapi: left out; --by-hand names a Python that has it")
        given.by_hand = None
    if given.wrk and shutil.which("wrk") is None:
        raise SystemExit("--wrk: there is no wrk here; install Debian's")
    with tempfile.TemporaryDirectory() as folder:
        bundles = given.bundles or untrained(Path(folder))
        found = {
            "command": f"benchmarks/serving.py --seconds {given.seconds:g} --rounds {given.rounds}"
            + (f" --threads {given.threads}" if given.threads else ""),
            "host": str(this_host()),
            "bundles": {bundle.stem: of_bundle(bundle, given) for bundle in bundles},
        }
    print(table(found))
    if given.output:
        given.output.write_text(json.dumps(found, indent=1) + "\n")
        given.output.with_suffix(".md").write_text(table(found))


if __name__ == "__main__":
    main()
