"""One shard of several: what tar files, Parquet and npz shards come down to."""

from collections.abc import Callable
from typing import NamedTuple

from gantrain.data.pictures import Pixels


class Part(NamedTuple):
    """A shard. names: of its images. open: as of a Source.

    labels: a class for each, by number or by name; None without labels.
    classes: the names that numbers stand for, if the shard tells them.
    """

    names: list[str]
    labels: list[int] | list[str] | None
    open: Callable[[int], bytes | Pixels]
    classes: list[str]
