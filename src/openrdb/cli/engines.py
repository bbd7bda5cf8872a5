"""`openrdb engines`, and `openrdb run` for the programs that come with them."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.table import Table

from openrdb.cli.common import err, out, settings_from

app = typer.Typer(help="Engine versions: list and install them.")
programs = typer.Typer()


@app.command("list")
def engines_list() -> None:
    """Show the engine versions, and which of them are installed."""
    from openrdb.host.bundles.cache import Bundles  # noqa: PLC0415

    settings = settings_from()
    bundles = Bundles(settings.cache, settings.engine_aliases)
    installed = bundles.installed()
    table = Table("version", "newest minor", "installed", "from", box=None)
    for release in bundles.releases():
        bundle = installed.get(release.version_name)
        here = bundle.version if bundle else "no"
        table.add_row(release.version_name, release.version, here, release.source)
    out.print(table)


@app.command("install")
def engines_install(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Versions, as PostgreSQL-17 or MySQL-9; default: all current."),
    ] = None,
) -> None:
    """Download engine versions into the cache and verify them; does nothing where they are."""
    from openrdb.cli import installation  # noqa: PLC0415

    installation.run(settings_from(), names or [], out, err)


@programs.command("run", context_settings={"ignore_unknown_options": True})
def run_program(
    program: Annotated[str, typer.Argument(help="psql, pg_dump, mysql, mysqldump …")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Its arguments; after -- those that are ours too.")
    ] = None,
) -> None:
    """Run a program of an engine, of the newest version that has it."""
    from openrdb.host.bundles.cache import Bundles  # noqa: PLC0415

    bundle = Bundles(settings_from().cache).with_program(program)
    command = [*bundle.command(program), *(arguments or ())]
    os.execve(command[0], command, os.environ | bundle.environment)  # noqa: S606
