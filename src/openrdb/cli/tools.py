"""`openrdb env`, `openrdb doctor` and `openrdb demo`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from openrdb.cli.common import DataDir, out, settings_from
from openrdb.credentials import read_credentials
from openrdb.system import process

app = typer.Typer()


@app.command()
def env(data_dir: DataDir = None) -> None:
    """Print the environment that official clients need: eval "$(openrdb env)"."""
    for name, value in read_credentials(settings_from(data_dir=data_dir).data_dir).items():
        print(f"export {name}={value}")


@app.command()
def doctor(data_dir: DataDir = None) -> None:
    """Say what works on this host, and why not what does not; exit code 1 if serving cannot."""
    from openrdb.cli import doctor as checks  # noqa: PLC0415

    table = Table("check", "", "finding", box=None)
    findings = checks.examine(settings_from(data_dir=data_dir))
    for finding in findings:
        mark = {"ok": "[green]✓[/green]", "warning": "[yellow]![/yellow]", "bad": "[red]✗[/red]"}
        table.add_row(finding.subject, mark[finding.verdict], finding.text)
    out.print(table)
    if any(finding.verdict == "bad" for finding in findings):
        raise typer.Exit(1)


@app.command()
def demo(
    data_dir: DataDir = None,
    engine: Annotated[
        str, typer.Option(help="The engine version: PostgreSQL-17, MySQL-9 …")
    ] = "PostgreSQL-17",
) -> None:
    """Create an instance with the official SDK, run SQL in it, and print how to connect."""
    from openrdb.cli import demo as tour  # noqa: PLC0415

    process.clean_environment()
    tour.run(settings_from(data_dir=data_dir), engine, out)
