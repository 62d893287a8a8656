"""How a page is made; light, so that `gan --help` may read it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ganinfer.options import Option


@dataclass(frozen=True, kw_only=True)
class WebOptions:
    """Options of `write_page`; those of `gan web`, too.

    Attributes:
        precision: which of the bundle's graphs; by default fp32, or fp16 if there is one and fp32
            has more than 20 MB.
        runtime: onnxruntime-web: the folder of its npm package, or the package as npm packs it; by
            default what `gan fetch web` has brought.
    """

    precision: Annotated[
        str | None,
        Option(help="Precision of the graph; by default fp32, of large ones fp16."),
    ] = None
    runtime: Annotated[
        Path | None,
        Option(help="onnxruntime-web, its npm package; by default that of gan fetch web."),
    ] = None
