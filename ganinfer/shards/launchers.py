"""Which part of the work is this process's, as the launchers of clusters tell their processes.

SLURM_ARRAY_TASK_ID, _MIN, _STEP, _COUNT    of a job array of Slurm (sbatch --array)
RANK, WORLD_SIZE                            of torchrun and whoever sets up torch.distributed
JOB_COMPLETION_INDEX                        of a Kubernetes job with completionMode: Indexed, which
                                            does not tell how many there are: auto/1000 does
"""

import re
from collections.abc import Mapping

from ganinfer.errors import RequestError


def part_of(text: str, environment: Mapping[str, str]) -> tuple[int, int]:
    """The number of a part, from 0, and how many there are.

    Args:
        text: "3/1000", "auto", or "auto/1000".
        environment: os.environ.

    Raises:
        RequestError: another text, or one launcher's variables are not there.
    """
    told = re.fullmatch(r"(auto|\d{1,9})(?:/(\d{1,9}))?", text)
    if not told or (told[1] != "auto" and told[2] is None):
        raise RequestError(f"--shards {text}: expected i/N, i from 0, or auto, or auto/N")
    i, of = (int(told[1]), None) if told[1] != "auto" else _told(environment)
    count = int(told[2]) if told[2] else of
    if count is None:
        raise RequestError(
            "--shards auto: JOB_COMPLETION_INDEX does not tell how many there are; give the job's"
            " completions, as in auto/1000"
        )
    if of not in (None, count):
        raise RequestError(f"--shards {text}: the launcher has started {of}, not {count}")
    if not i < count:
        raise RequestError(f"--shards {i}/{count}: expected a part from 0 to {count - 1}")
    return i, count


def _told(environment: Mapping[str, str]) -> tuple[int, int | None]:
    """By the one launcher that has started this process."""

    def number(name: str, default: str | None = None) -> int:
        value = environment.get(name, default)
        if value is None or not value.isdecimal():
            raise RequestError(f"--shards auto: {name} is {value}; expected a number: give i/N")
        return int(value)

    found = [
        name
        for name in ("SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX", "RANK")
        if name in environment
    ]
    match found:
        case ["SLURM_ARRAY_TASK_ID"]:
            after = number("SLURM_ARRAY_TASK_ID") - number("SLURM_ARRAY_TASK_MIN", "0")
            return after // number("SLURM_ARRAY_TASK_STEP", "1"), number("SLURM_ARRAY_TASK_COUNT")
        case ["JOB_COMPLETION_INDEX"]:
            return number("JOB_COMPLETION_INDEX"), None
        case ["RANK"]:
            return number("RANK"), number("WORLD_SIZE")
        case []:
            raise RequestError(
                "--shards auto: found neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX nor RANK"
                " in the environment; give i/N"
            )
        case _:
            raise RequestError(f"--shards auto: found {' and '.join(found)}; give i/N")
