"""`openrdb serve`, `openrdb stop` and the agent."""

from __future__ import annotations

import ipaddress
import logging
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.logging import RichHandler

from openrdb import __version__, logs
from openrdb.cli.common import (
    DataDir,
    err,
    exit_if_refused,
    out,
    plain,
    settings_from,
)
from openrdb.cli.listing import AsJson, print_details
from openrdb.config import SAME_FILE_SYSTEM, Settings, same_file_system
from openrdb.system import notify, process

app = typer.Typer()


@app.command()
def serve(
    data_dir: DataDir = None,
    listen: Annotated[
        str | None, typer.Option("--listen", help="Address and port of the API.")
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option("--tls-cert", help="Certificate of the API (PEM, with its chain)."),
    ] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Its key (PEM).")] = None,
    insecure: Annotated[
        bool | None,
        typer.Option(
            "--insecure", help="Listen beyond this machine without TLS.", show_default=False
        ),
    ] = None,
    log_format: Annotated[
        str | None, typer.Option("--log-format", help="text, or json: one object a line.")
    ] = None,
) -> None:
    """Run the service. Databases outlive it; `openrdb stop` ends them too."""
    settings = settings_from(
        data_dir=data_dir,
        listen=listen,
        tls_cert=tls_cert,
        tls_key=tls_key,
        insecure=insecure,
        log_format=log_format,
    )
    _log_to_standard_error(settings)
    for library in ("alembic", "httpx"):
        logging.getLogger(library).setLevel(logging.WARNING)

    def run() -> None:
        exit_if_refused(lambda: _serve(settings))

    if os.getpid() == 1:
        from openrdb.agent import shutdown  # noqa: PLC0415
        from openrdb.cli import init  # noqa: PLC0415

        raise typer.Exit(
            init.run(run, lambda: exit_if_refused(lambda: shutdown.stop(settings.data_dir)))
        )
    run()


@app.command(hidden=True)
def agent(data_dir: DataDir = None) -> None:
    """Run this host's agent, which `serve` starts: it keeps databases running."""
    from openrdb.agent import run  # noqa: PLC0415

    run.run(settings_from(data_dir=data_dir).data_dir)


@app.command()
def stop(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Stop the service and every database, cleanly; `serve` brings them back."""
    from openrdb.agent import shutdown  # noqa: PLC0415

    process.prepare()
    settings = settings_from(data_dir=data_dir)
    shutdown.stop(settings.data_dir)
    text = f"stopped everything of {settings.data_dir}"
    print_details({"stopped": str(settings.data_dir)}, [text], as_json=as_json)


def _serve(settings: Settings) -> None:
    from openrdb import service  # noqa: PLC0415

    serving = False

    def started(credentials: dict[str, str]) -> None:
        nonlocal serving
        serving = True
        notify.ready()
        _banner(settings, credentials)

    try:
        service.serve(settings, started)
    except KeyboardInterrupt:
        if serving:
            out.print(_farewell(settings), soft_wrap=True, highlight=False, markup=False)
        raise


def _farewell(settings: Settings) -> str:
    """Return what is said at ctrl-C: what goes on running, and how that is ended."""
    from openrdb.state.database import Database  # noqa: PLC0415
    from openrdb.state.running import count_instances  # noqa: PLC0415

    database = Database(settings.database_url)
    try:
        count = count_instances(database)
    finally:
        database.close()
    if count == 0:
        return "stopped; there are no databases"
    left = "1 database runs" if count == 1 else f"{count} databases run"
    command = shlex.join([sys.argv[0], "stop", "--data-dir", str(settings.data_dir)])
    return f"stopped; {left} on: `{command}` ends what runs"


def _banner(settings: Settings, credentials: dict[str, str]) -> None:
    out.print(f"[bold]OpenRDB {__version__}[/bold] serves {credentials['SCW_API_URL']}/rdb/v1")
    out.print(plain(f"  data   {settings.data_dir}"))
    out.print(f"  web    {credentials['SCW_API_URL']}/console")
    out.print(f"  docs   {credentials['SCW_API_URL']}/docs")
    local = ipaddress.ip_address(settings.public_address).is_loopback
    if ipaddress.ip_address(settings.listen_host).is_unspecified and local:
        text = f"endpoints listen on {settings.public_address} only: set OPENRDB_PUBLIC_ADDRESS"
        out.print(f"  note   {text}", soft_wrap=True)
    if same_file_system(settings):
        out.print(f"  note   {SAME_FILE_SYSTEM}", soft_wrap=True)
    command = f'eval "$({sys.argv[0]} env --data-dir {settings.data_dir})"'
    out.print("  next   ", end="")
    out.print(command, style="cyan", soft_wrap=True, highlight=False, markup=False)
    sys.stdout.flush()


def _log_to_standard_error(settings: Settings) -> None:
    """Log in colours to a terminal; else one line a message, however long it is."""
    level, form = settings.log_level, settings.log_format
    if err.is_terminal and form == "text":
        rich = RichHandler(console=err, show_path=False, rich_tracebacks=False)
        logs.configure(level, form, rich, "%(message)s")
    else:
        logs.configure(level, form)
