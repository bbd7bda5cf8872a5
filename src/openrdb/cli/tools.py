"""`openrdb env`, `openrdb doctor` and `openrdb demo`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from openrdb.cli.common import DataDir, err, out, settings_from
from openrdb.cli.listing import AsJson, print_details, print_environment, print_listing
from openrdb.credentials import read_credentials
from openrdb.system import process

_MARKS = {"ok": "[green]✓[/green]", "warning": "[yellow]![/yellow]", "bad": "[red]✗[/red]"}

app = typer.Typer()


@app.command()
def env(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Print the environment that official clients need: eval "$(openrdb env)"."""
    environment = read_credentials(settings_from(data_dir=data_dir).data_dir)
    print_environment(environment, as_json=as_json)


@app.command()
def doctor(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Say what works on this host, and why not what does not; exit code 1 if serving cannot."""
    from openrdb.cli import doctor as checks  # noqa: PLC0415

    findings = checks.examine(settings_from(data_dir=data_dir))
    print_listing(
        findings,
        ("check", "", "finding"),
        lambda one: (one.subject, Text.from_markup(_MARKS[one.verdict]), one.text),
        as_json=as_json,
    )
    if any(finding.verdict == "bad" for finding in findings):
        raise typer.Exit(1)


@app.command()
def demo(
    data_dir: DataDir = None,
    engine: Annotated[
        str, typer.Option(help="The engine version: PostgreSQL-17, MySQL-9 …")
    ] = "PostgreSQL-17",
    as_json: AsJson = False,
) -> None:
    """Create an instance with the official SDK, run SQL in it, and print how to connect."""
    from openrdb.cli import demo as tour  # noqa: PLC0415

    process.clean_environment()
    seen = tour.run(settings_from(data_dir=data_dir), engine, err if as_json else out)
    print_details(seen, [], as_json=as_json)
