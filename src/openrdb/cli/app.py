"""`openrdb`: all commands."""

from __future__ import annotations

from typing import Annotated

import typer

from openrdb import __version__
from openrdb.cli import (
    engines,
    events,
    instances,
    keys,
    maintenance,
    operations,
    recovery,
    saved_state,
    serve,
    systemd,
    tools,
    undelete,
)
from openrdb.cli.common import exit_if_refused, out

app = typer.Typer(
    name="openrdb",
    help="Managed PostgreSQL and MySQL that anyone can run, with the Scaleway RDB v1 API.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(serve.app)
app.add_typer(systemd.app)
app.add_typer(tools.app)
app.add_typer(instances.app)
app.add_typer(undelete.app)
app.add_typer(events.app)
app.add_typer(engines.programs)
app.add_typer(engines.app, name="engines", no_args_is_help=True)
app.add_typer(keys.app, name="keys", no_args_is_help=True)
app.add_typer(maintenance.app, name="maintenance", no_args_is_help=True)
app.add_typer(operations.app, name="operations", no_args_is_help=True)
app.add_typer(recovery.app, name="recovery", no_args_is_help=True)
app.add_typer(saved_state.app, name="state", no_args_is_help=True)


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        out.print(f"openrdb {__version__}")
        raise typer.Exit


def run() -> None:
    exit_if_refused(app)
