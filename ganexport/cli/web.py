"""gan web and gan fetch."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ganexport.web.options import WebOptions
from ganinfer.cli.console import console, progress_bars
from ganinfer.cli.options import BundlePath, expanded
from ganinfer.errors import ConfigError


@expanded
def web(
    *,
    bundle: BundlePath,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="name.html; or a folder, for a web server.")
    ],
    options: WebOptions,
) -> None:
    """Make a page that draws a bundle's images in any browser, of itself: no server, no request."""
    from ganexport.web.page import write_page

    write_page(bundle, output, options)
    if output.suffix == ".html":
        size = output.stat().st_size / 1e6
        console.print(f"{output}: {size:.1f} MB; open it in a browser", soft_wrap=True)
    else:
        console.print(f"{output}: a folder; let a web server give it away", soft_wrap=True)


def fetch(
    what: Annotated[
        str, typer.Argument(help="What to fetch: inception, or web.", show_default=False)
    ],
    path: Annotated[
        Path | None,
        typer.Option("--from", help="Take a file that is here already, download nothing."),
    ] = None,
) -> None:
    """Fetch a public network, or onnxruntime-web for gan web; checked by sha256."""
    bring = _bringer(what)
    with progress_bars() as report:
        place = bring(path, progress=lambda done, total: report("fetching", done, total))
    console.print(f"{what} -> {place}", soft_wrap=True)


def _bringer(what: str) -> Callable[..., Path]:
    """What brings it; torch is imported for its networks alone."""
    if what == "web":
        from ganexport.web.runtime import fetch_runtime

        return fetch_runtime
    if what == "inception":
        from gantrain.extractors.inception import fetch_inception

        return fetch_inception
    raise ConfigError(f"fetch: there is no {what!r}; expected 'inception' or 'web'")
