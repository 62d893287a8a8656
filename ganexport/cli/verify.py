"""gan verify."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ganinfer.api_keys import api_key_to_show
from ganinfer.cli.console import console, progress_bars
from ganinfer.cli.options import ApiKeyFile, BundlePath, PublicKeyPath, ServedName
from ganinfer.cli.tables import show_gates
from ganinfer.errors import Ending, RequestError
from ganinfer.files import check_place, write_atomic

if TYPE_CHECKING:
    from ganexport.proof.layers import Comparison


def verify(
    bundle: BundlePath,
    backend: Annotated[
        str | None, typer.Option(help="Backend to check; all that the bundle is for by default.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where it runs: auto, cpu, cuda or cuda:N.")] = "auto",
    require: Annotated[
        list[str] | None,
        typer.Option(
            help="Fail if this cannot run here: tensorrt, tensorrt:fp16, ...; may be repeated."
        ),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Compare with this run, by all gates.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="The run's prepared dataset, if it was moved.")
    ] = None,
    num: Annotated[
        int, typer.Option(help="Images of each set of the FID gates, at most.")
    ] = 10_000,
    minutes: Annotated[
        float, typer.Option(help="With --run: minutes after which no more images are drawn.")
    ] = 10.0,
    public_key: PublicKeyPath = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the verdict there, as JSON.")
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(help="Check this server instead: http://host:port or grpc://host:port."),
    ] = None,
    model: ServedName = None,
    api_key_file: ApiKeyFile = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Also compare fp32 and a variant layer by layer.")
    ] = False,
    precision: Annotated[
        str | None,
        typer.Option(
            help="With --layers: the variant. With --server: what it serves, fp32 by default."
        ),
    ] = None,
) -> None:
    """Check a bundle on this host, without torch; with --run, by all gates of the export too.

    Its bytes, its golden images, and the distribution of its images against what torch gave.
    --server checks what a server gives. --layers finds where a variant leaves fp32 or, with --run,
    the newest checkpoint.
    """
    if precision is not None and not (layers or server):
        raise RequestError("--precision: it goes with --layers or --server")
    for name, given in (("--model", model), ("--api-key-file", api_key_file)):
        if given is not None and server is None:
            raise RequestError(f"{name}: it goes with --server")
    if server is not None and (backend or device != "auto" or require or run or layers):
        raise RequestError(
            "--server: it goes without --backend, --device, --require, --run and --layers"
        )
    if json_file is not None:
        check_place(json_file, ".json")
    from ganinfer.verify import verify_host, verify_server

    with progress_bars() as report:
        if server is not None:
            gates = verify_server(
                bundle,
                server,
                name=model,
                precision=precision or "fp32",
                api_key=api_key_to_show(api_key_file),
                public_key=public_key,
                progress=report,
            )
        else:
            gates = verify_host(
                bundle,
                backend=backend,
                device=device,
                require=require or (),
                public_key=public_key,
                progress=report,
            )
        if run is not None:
            from ganexport.proof.verify import verify_against_run

            gates += verify_against_run(
                bundle, run, data=data, num_images=num, minutes=minutes, progress=report
            )
    show_gates(gates)
    failed = [gate for gate in gates if not gate.passed]
    skipped = [gate.artifact for gate in gates if gate.skipped]
    if json_file is not None:
        told = [gate.model_dump() for gate in gates]
        verdict = {"passed": not failed, "skipped": skipped, "gates": told}
        write_atomic(json_file, (json.dumps(verdict, indent=1) + "\n").encode())
    if layers:
        from ganexport.proof.layers import compare_bundle

        _show_layers(compare_bundle(bundle, precision, run))
    if failed:
        if all(gate.num_images == 0 for gate in failed):
            names = ", ".join(gate.artifact for gate in failed)
            console.print(f"{bundle}: cannot run here: {names}", style="red", soft_wrap=True)
            raise typer.Exit(Ending.UNAVAILABLE)
        console.print(f"{bundle}: FAILED", style="red")
        raise typer.Exit(Ending.PARITY)
    unseen = f"; not run here, and nobody's word for it: {', '.join(skipped)}" if skipped else ""
    if run is None and not _was_verified(bundle):
        console.print(
            f"{bundle}: unverified: it gives here what it gave there, and was exported with"
            f" --no-verify; compare it with its run by --run{unseen}",
            style="yellow",
            soft_wrap=True,
        )
        raise typer.Exit(Ending.UNVERIFIED)
    console.print(f"{bundle}: good{unseen}", soft_wrap=True)


def _was_verified(bundle: Path) -> bool:
    """Whether the export checked its parity."""
    from ganinfer.bundle.archive import Bundle

    with Bundle(bundle) as opened:
        return opened.manifest.verified


def _show_layers(found: "Comparison") -> None:
    """The worst tensor of every layer, and where the trouble begins."""
    table = Table(title="layers", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in ("layer", "worst tensor"):
        table.add_column(column, no_wrap=True)
    for column in ("max error", "PSNR, dB"):
        table.add_column(column, no_wrap=True, justify="right")
    for worst in found.layers:
        error, psnr = f"{worst.max_difference:.3g}", f"{worst.psnr_db:.1f}"
        table.add_row(worst.layer, worst.tensor, error, psnr)
    console.print(table)
    first, jump = found.first, found.largest_jump
    console.print(
        f"the error grows most in {jump.layer} ({jump.op}, {jump.tensor}):"
        f" by {jump.jump:.2%} of its range",
        soft_wrap=True,
    )
    below = f"below {found.departs_db:g} dB over {found.num_images} golden images"
    if first is None:
        console.print(f"no layer departs: none lies {below}", soft_wrap=True)
    else:
        where = f"{first.layer} ({first.op}, {first.tensor})"
        console.print(f"first to depart, {below}: {where}", style="yellow", soft_wrap=True)
