"""gan bench."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ganinfer.api_keys import api_key_to_show
from ganinfer.cli.console import console, step_by_step
from ganinfer.cli.layers import bench_layers
from ganinfer.cli.options import ApiKeyFile, BundlePath, ServedName
from ganinfer.cli.tables import bench_table, figure, share, show_refused
from ganinfer.errors import RequestError
from ganinfer.files import check_place, write_atomic

if TYPE_CHECKING:
    from ganinfer.bench import Report
    from ganinfer.bench.measure import Served
    from ganinfer.bench.served import ServerReport


def bench(
    bundle: BundlePath,
    backend: Annotated[
        list[str] | None,
        typer.Option(help="Backend to measure; may be repeated. All of ours by default."),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(help="Precision to measure; may be repeated. All by default."),
    ] = None,
    device: Annotated[str, typer.Option(help="Where it runs: auto, cpu, cuda or cuda:N.")] = "auto",
    seconds: Annotated[
        float, typer.Option(min=0.01, help="About how long each figure is measured.")
    ] = 2.0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write all figures there, as JSON.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Also draw images/s, or the layers, as in speed.svg.")
    ] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Measure the layers instead, against their roofs.")
    ] = False,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="With --layers: images a run; 64 by default.")
    ] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="Let Sampler open the fastest on this host from now on.")
    ] = False,
    server: Annotated[
        str | None,
        typer.Option(help="Measure this server instead, as in http://localhost:8000."),
    ] = None,
    model: ServedName = None,
    api_key_file: ApiKeyFile = None,
) -> None:
    """Measure a bundle on this host: every backend in every precision, each in a fresh process.

    --layers tells where the time of a run goes, and how far each layer is from the machine's rate.
    --server measures what gives it over the Open Inference Protocol: gan serve, or Triton.
    """
    import ganinfer.bench
    from ganinfer.bench.chart import bar_chart
    from ganinfer.bench.measure import BULK

    for name, given in (("--model", model), ("--api-key-file", api_key_file)):
        if given is not None and server is None:
            raise RequestError(f"{name}: it goes with --server")
    local = backend or precision or device != "auto" or plot or tune or layers
    if server is not None and local:
        raise RequestError(
            "--server: it goes without --backend, --precision, --device, --plot, --tune, --layers"
        )
    if batch_size is not None and not layers:
        raise RequestError("--batch-size: it goes with --layers")
    if layers and tune:
        raise RequestError("--tune: it goes without --layers")
    for place, suffix in ((json_file, ".json"), (plot, ".svg")):
        if place is not None:
            check_place(place, suffix)
    if server is not None:
        _bench_server(bundle, server, model, api_key_to_show(api_key_file), seconds, json_file)
        return
    if layers:
        bench_layers(
            bundle,
            backends=backend or (),
            precisions=precision or (),
            device=device,
            batch_size=batch_size or BULK,
            seconds=seconds,
            json_file=json_file,
            plot=plot,
        )
        return
    with step_by_step("measuring") as show:
        report = ganinfer.bench.bench(
            bundle,
            backends=backend or (),
            precisions=precision or (),
            device=device,
            seconds=seconds,
            progress=show,
        )
    _show(report)
    if json_file is not None:
        write_atomic(json_file, report.to_json().encode())
    if plot is not None:
        write_atomic(plot, bar_chart(report).encode())
    if tune:
        choice = ganinfer.bench.tune(report)
        psnr = report.psnr_db.get(choice.precision)
        fidelity = "" if psnr is None else f"; PSNR to torch {psnr:.1f} dB at the export"
        console.print(
            f"tuned: {choice.backend} {choice.precision} on {choice.device}, {choice}{fidelity}",
            soft_wrap=True,
        )


def _bench_server(
    bundle: Path,
    server: str,
    model: str | None,
    key: str | None,
    seconds: float,
    json_file: Path | None,
) -> None:
    from ganinfer.bench.served import bench_server

    with step_by_step("asking") as show:
        report = bench_server(
            bundle,
            server,
            name=model,
            key=key,
            seconds=seconds,
            progress=show,
        )
    _show_served(report)
    if json_file is not None:
        write_atomic(json_file, report.to_json().encode())


def _show_served(report: "ServerReport") -> None:
    """One table, and what was compared before."""
    table = _latencies("ms of a request, and images/s @ so many callers", report.served)
    console.print(table)
    console.print()
    equal = "equal to the byte to" if report.byte_equal else "within the bundle's limits of"
    console.print(
        f"{report.server}: model {report.model}, bundle {report.sha256[:12]}; its images are"
        f" {equal} a Sampler's here. Callers share this machine with the server, if it runs here.",
        soft_wrap=True,
    )


def _show(report: "Report") -> None:
    """Tables of at most 100 columns; what there is to say of them stands below."""
    for table in (_speed(report), _arithmetic(report), _served(report)):
        console.print(table)
        console.print()
    macs = "not in this bundle; export it again" if report.macs is None else f"{report.macs:,}"
    console.print(
        f"MACs an image: {macs}. The machine: what the backend reaches in products of 2048 x 2048"
        " matrices in this precision, on the CPU.",
        soft_wrap=True,
    )
    show_refused(report.refused)


def _speed(report: "Report") -> Table:
    """Cold start, memory, images/s."""
    sizes = sorted({n for found in report.measured for n in found.images_per_s})
    cold = ["import\ns", "open\ns", "first\nms", "open\nMiB", "all\nMiB"]
    columns = ["device", *cold, *(f"n={n}" for n in sizes)]
    table = bench_table("images/s of sample(n), after a cold start", columns)
    for found in report.measured:
        table.add_row(
            found.name,
            found.device,
            f"{found.import_s:.2f}",
            f"{found.open_s:.2f}",
            figure(found.first_image_ms),
            figure(found.open_mib),
            figure(found.memory_mib),
            *(figure(found.images_per_s.get(n)) for n in sizes),
        )
    return table


def _arithmetic(report: "Report") -> Table:
    """Where the time goes, and what the machine could do."""
    columns = ["latents", "device", "rest", "bare images/s", "of bare", "GMAC/s", "of machine"]
    table = bench_table("at n=64: the workers' time, the bare backend, the arithmetic", columns)
    for found in report.measured:
        table.add_row(
            found.name,
            *(share(found.time_shares[part]) for part in ("latents", "device", "rest")),
            figure(found.bare_images_per_s),
            share(found.share_of_bare),
            figure(found.gmacs_per_s),
            share(found.share_of_machine),
        )
    return table


def _served(report: "Report") -> Table:
    """Latency under load."""
    rows = {found.name: found.served for found in report.measured}
    return _latencies("single images: ms and images/s @ so many clients", rows)


def _latencies(title: str, rows: "Mapping[str, Mapping[int, Served | None]]") -> Table:
    """Of each row, by the number of callers; a dash is more than there could be."""
    counts = sorted(next(iter(rows.values())))
    table = bench_table(
        title, [f"{name}\n@{n}" for n in counts for name in ("p50", "p99", "img/s")]
    )
    for name, served in rows.items():
        cells: list[str] = []
        for found in (served[count] for count in counts):
            figures = found and (found.p50_ms, found.p99_ms, found.images_per_s)
            cells += map(figure, figures or (None, None, None))
        table.add_row(name, *cells)
    return table
