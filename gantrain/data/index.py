"""What is known of a dataset whose images stay in their shards: shards.jsonl, a line a shard."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from gantrain.data.decoding import Notes
from gantrain.data.resolution import Size


class Block(NamedTuple):
    """Images of a shard that are read at once: of their files' bytes, and the sha256 of these."""

    num_images: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class Shard:
    """A line of the index.

    name: of the file, in the folder of the shards. size, mtime_ns: that it had. shape: height and
    width of all images, as far as they are known. colour, labelled: have its images colours, and
    labels? values: the labels that no shard before it has. classes: that it tells. skipped: names
    of broken images -> the reason. notes, low, high: as of `Done`.
    """

    name: str
    size: int
    mtime_ns: int
    shape: Size | None
    colour: bool
    labelled: bool
    values: list[int | str]
    classes: list[str]
    skipped: dict[str, str]
    notes: Notes
    low: int
    high: int
    blocks: list[Block]

    @property
    def num_images(self) -> int:
        """Of all blocks."""
        return sum(block.num_images for block in self.blocks)

    @property
    def line(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self)) + "\n"

    def is_as_it_was(self, folder: Path) -> bool:
        """Has the file its old size and date?"""
        try:
            status = (folder / self.name).stat()
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (self.size, self.mtime_ns)


def read_shards(folder: Path) -> Iterator[Shard]:
    """The lines of an index.

    Raises:
        OSError, ValueError, TypeError: there is none, or it is damaged.
    """
    with (folder / "shards.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            found = json.loads(line)
            shape = found["shape"] and tuple(found["shape"])
            blocks = [Block(*block) for block in found["blocks"]]
            yield Shard(**found | {"shape": shape, "blocks": blocks})


def is_current(folder: Path, files: list[Path]) -> bool:
    """Is the folder an index of exactly these shards, as they are now?"""
    try:
        base = Path(json.loads((folder / "dataset.json").read_bytes())["folder"])
        shards = list(read_shards(folder))
    except (OSError, ValueError, TypeError, LookupError):
        return False
    same = [base / shard.name for shard in shards] == [file.resolve() for file in files]
    return same and all(shard.is_as_it_was(base) for shard in shards)
