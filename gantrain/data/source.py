"""What every source of pictures comes down to: names, labels, and something that opens each one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gantrain.data.pictures import Pixels, decode


@dataclass(frozen=True)
class Source:
    """Pictures that can be read one by one.

    Attributes:
        names: what each is called in a message.
        classes: names of the K classes; empty when unlabelled.
        labels: int64 (N,) in [0, K), or None.
        open: index -> the picture's file, still encoded, or its pixels, uint8 (H, W) or
            (H, W, 1, 3 or 4); raises whatever it likes if the picture is broken.
        files: that it is made of, where there are several.
        skipped: what is not among the names though it is called a picture -> the reason.
        warnings: what else whoever prepares it should know.
    """

    names: list[str]
    classes: list[str]
    labels: NDArray[np.int64] | None
    open: Callable[[int], bytes | Pixels]
    files: Sequence[Path] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    def read(self, index: int) -> Pixels:
        """The pixels of one picture, as it is: uint8 (H, W), if it is grey, or (H, W, 3)."""
        return decode(self.open(index)).pixels
