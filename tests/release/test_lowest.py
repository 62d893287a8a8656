"""The lower bounds of pyproject.toml are true: the sampler's tests run with all of them."""

import re
import tomllib

import pytest
from installing import ROOT, call, environment, interpreter
from packaging.requirements import Requirement
from packaging.version import Version

LOWEST = ROOT / "constraints-lowest.txt"
TRIED = (
    "cpu",
    "export",
    "figures",
    "hub",
    "layers",
    "lmdb",
    "openvino",
    "parquet",
    "remote",
    "serve",
    "serve-grpc",
    "signing",
    "train",
    "video",
)
NOT_TRIED = {
    "dev",  # tools of this checkout: constraints.txt has their versions
    "ray",  # has an environment of its own in its tests
    "gpu",  # takes the place of cpu, and needs a GPU
    "mlflow",  # watches training, and brings much that is no business of sampling
    "rtx",  # engines: sampled on a GPU
    "tensorrt",
    "wandb",  # as mlflow
}

# Tests of processes, time and forks rather than of packages; they take the most time.
LEFT_OUT = (
    "bench",
    "scheduler",
    "shards/test_keeping.py",
    "shards/test_launchers.py",
    "shards/test_shards.py",
    "server/test_bench_of_servers.py",
    "server/test_connections.py",
    "server/test_operating.py",
    "server/test_rpc_operating.py",
    "server/test_serve_command.py",
    "server/test_workers.py",
)


def bounds() -> dict[str, Version]:
    """Each package that the tried extras name, and the lowest version that all of them admit."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert set(TRIED) | NOT_TRIED == set(extras)
    found: dict[str, Version] = {}
    for line in sum((extras[extra] for extra in TRIED), project["dependencies"]):
        requirement = Requirement(line)
        if requirement.name == project["name"]:
            continue  # an extra that has another one, which is tried too
        (lower,) = [Version(s.version) for s in requirement.specifier if s.operator == ">="]
        found[requirement.name] = max(lower, found.get(requirement.name, lower))
    return found


def pins(name: str) -> dict[str, Version]:
    lines = (ROOT / name).read_text().splitlines()
    matched = [re.fullmatch(r"([a-z0-9-]+)==(\S+)", line) for line in lines if line[:1] != "#"]
    return {match[1]: Version(match[2]) for match in matched if match}


def test_the_lowest_versions_are_the_bounds_of_pyproject() -> None:
    lowest = bounds() | {"torch": pins("constraints.txt")["torch"]}  # see the file
    assert pins(LOWEST.name) == lowest


def test_tested_versions_are_within_the_bounds_and_name_every_package() -> None:
    tested = pins("constraints.txt")
    assert {name for name, bound in bounds().items() if tested[name] < bound} == set()


def test_what_is_left_out_is_there() -> None:
    assert all((ROOT / "tests/ganinfer" / name).exists() for name in LEFT_OUT)


@pytest.mark.slow
def test_the_samplers_tests_pass_with_the_lowest_versions() -> None:
    extras = ",".join(TRIED)
    runner = ("pytest", "pytest-xdist")
    with environment(
        interpreter("3.11"), "-c", LOWEST, "-e", f"{ROOT}[{extras}]", *runner
    ) as commands:
        ignored = [f"--ignore=tests/ganinfer/{name}" for name in LEFT_OUT]
        said = call(commands / "python", "-m", "pytest", "tests/ganinfer", *ignored, cwd=ROOT)
    passed = re.search(r"(\d+) passed", said)
    assert passed
    assert int(passed[1]) > 500
