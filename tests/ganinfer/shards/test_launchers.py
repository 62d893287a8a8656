import pytest

from ganinfer.errors import RequestError
from ganinfer.shards.launchers import part_of

SLURM = {
    "SLURM_ARRAY_TASK_ID": "14",
    "SLURM_ARRAY_TASK_MIN": "10",
    "SLURM_ARRAY_TASK_STEP": "2",
    "SLURM_ARRAY_TASK_COUNT": "5",
}


@pytest.mark.parametrize(
    ("text", "environment", "part"),
    [
        ("3/1000", {}, (3, 1000)),
        ("0/1", SLURM, (0, 1)),
        ("auto", SLURM, (2, 5)),
        ("auto/5", SLURM, (2, 5)),
        ("auto", {"RANK": "1", "WORLD_SIZE": "2"}, (1, 2)),
        ("auto/8", {"JOB_COMPLETION_INDEX": "7"}, (7, 8)),
    ],
)
def test_a_launcher_tells_which_part(text: str, environment: dict, part: tuple) -> None:
    assert part_of(text, environment) == part


@pytest.mark.parametrize(
    ("text", "environment", "words"),
    [
        ("3", {}, "expected i/N, i from 0, or auto"),
        ("-1/3", {}, "expected i/N"),
        ("3/3", {}, "expected a part from 0 to 2"),
        ("0/0", {}, "expected a part from 0 to -1"),
        ("auto", {}, "found neither SLURM_ARRAY_TASK_ID nor"),
        ("auto", {"JOB_COMPLETION_INDEX": "7"}, "give the job's completions, as in auto/1000"),
        ("auto/4", SLURM, "the launcher has started 5, not 4"),
        ("auto", {"RANK": "1"}, "WORLD_SIZE is None; expected a number"),
        ("auto", {**SLURM, "RANK": "1"}, "found SLURM_ARRAY_TASK_ID and RANK; give i/N"),
    ],
)
def test_what_is_not_told_is_not_guessed(text: str, environment: dict, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        part_of(text, environment)
