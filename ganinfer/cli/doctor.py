"""gan doctor, gan --version."""

import dataclasses
import json
from typing import Annotated

import typer
from rich.table import Table

from ganinfer.cli.console import console


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for a program.")] = False,
) -> None:
    """Show what this host has, and what each missing thing needs: for a report of a fault."""
    from ganinfer.doctor import examine

    findings = examine()
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1))
        return
    table = Table(show_header=False, show_lines=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        lines = [finding.found, *([f"missing: {finding.missing}"] if finding.missing else [])]
        table.add_row(finding.part, "\n".join(lines))
    console.print(table)


def version(asked: bool) -> None:
    """Print the versions of what sampling runs on, and end."""
    if asked:
        from ganinfer.host.machine import this_host

        host = this_host()
        typer.echo("\n".join(f"{name} {number}" for name, number in sorted(host.versions.items())))
        typer.echo(f"{host.cpu}, {host.cpus} CPUs; {host.gpu or 'no GPU'}")
        raise typer.Exit
