"""gan triton."""

from pathlib import Path
from typing import Annotated

import typer

from ganexport.triton.options import TritonOptions
from ganinfer.cli.console import console
from ganinfer.cli.options import BundlePath, expanded


@expanded
def triton(
    *,
    bundle: BundlePath,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the repository.")],
    options: TritonOptions,
) -> None:
    """Make a model repository for Triton Inference Server; its README.md says how to serve it."""
    from ganexport.triton.repository import write_repository

    names = write_repository(bundle, output, options)
    console.print(f"-> {output}: {', '.join(names)}", soft_wrap=True)
