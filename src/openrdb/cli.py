"""The command line (DESIGN section 3). Exit codes: 0 done, 1 refused in one line, 2 wrong usage."""

from __future__ import annotations

import ipaddress
import logging
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text

from openrdb import __version__, operations_cli
from openrdb.config import Settings, load_settings
from openrdb.credentials import read_credentials
from openrdb.errors import HostError
from openrdb.system import process

app = typer.Typer(
    name="openrdb",
    help="Managed PostgreSQL and MySQL that anyone can run, with the Scaleway RDB v1 API.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
engines_app = typer.Typer(help="Engine versions: which there are, and installing them.")
app.add_typer(engines_app, name="engines", no_args_is_help=True)
keys_app = typer.Typer(help="API keys: making, listing and revoking them; the service may run.")
app.add_typer(keys_app, name="keys", no_args_is_help=True)

out = Console()
err = Console(stderr=True)

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where everything is kept.")]


def settings_from(**flags: Any) -> Settings:  # noqa: ANN401
    """The configuration with what was given on the command line.

    Raises:
        HostError: a value of it is wrong; one line says which.
    """
    return load_settings(**{name: value for name, value in flags.items() if value is not None})


app.add_typer(
    operations_cli.application(settings_from, out), name="operations", no_args_is_help=True
)


def _log_to_standard_error(level: str) -> None:
    """Log in colours to a terminal; else one line a message, however long it is."""
    if err.is_terminal:
        rich = RichHandler(console=err, show_path=False, rich_tracebacks=False)
        logging.basicConfig(level=level, format="%(message)s", handlers=[rich])
    else:
        logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s")


@app.command()
def serve(
    data_dir: DataDir = None,
    listen: Annotated[
        str | None, typer.Option("--listen", help="Address and port of the API.")
    ] = None,
) -> None:
    """Run the service. Databases outlive it; `openrdb stop` ends them too."""
    settings = settings_from(data_dir=data_dir, listen=listen)
    _log_to_standard_error(settings.log_level)
    for library in ("alembic", "httpx"):
        logging.getLogger(library).setLevel(logging.WARNING)
    if not settings.listen_host.startswith("127.") and settings.listen_host != "::1":
        logging.warning("listening beyond this machine without TLS: keys can be read on the way")

    def run() -> None:
        _or_say_why(lambda: _serve(settings))

    if os.getpid() == 1:
        from openrdb import init  # noqa: PLC0415
        from openrdb.agent import shutdown  # noqa: PLC0415

        raise typer.Exit(
            init.run(run, lambda: _or_say_why(lambda: shutdown.stop(settings.data_dir)))
        )
    run()


def _or_say_why(do: Callable[[], None]) -> None:
    """Do something; exit with 1 and one line where it is refused."""
    try:
        do()
    except HostError as error:
        err.print(f"[red]openrdb:[/red] {error}", soft_wrap=True, highlight=False)
        sys.exit(1)


def _serve(settings: Settings) -> None:
    from openrdb import service  # noqa: PLC0415

    serving = False

    def started(credentials: dict[str, str]) -> None:
        nonlocal serving
        serving = True
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
    out.print(f"  data   {settings.data_dir}")
    out.print(f"  docs   {credentials['SCW_API_URL']}/docs")
    local = ipaddress.ip_address(settings.public_address).is_loopback
    if ipaddress.ip_address(settings.listen_host).is_unspecified and local:
        text = f"endpoints listen on {settings.public_address} only: set OPENRDB_PUBLIC_ADDRESS"
        out.print(f"  note   {text}", soft_wrap=True)
    command = f'eval "$({sys.argv[0]} env --data-dir {settings.data_dir})"'
    out.print("  next   ", end="")
    out.print(command, style="cyan", soft_wrap=True, highlight=False, markup=False)
    sys.stdout.flush()


@app.command(hidden=True)
def agent(data_dir: DataDir = None) -> None:
    """Run this host's agent, which `serve` starts: it keeps databases running."""
    from openrdb.agent import run  # noqa: PLC0415

    run.run(settings_from(data_dir=data_dir).data_dir)


@app.command()
def stop(data_dir: DataDir = None) -> None:
    """Stop the service and every database, cleanly; `serve` brings them back."""
    from openrdb.agent import shutdown  # noqa: PLC0415

    process.prepare()
    settings = settings_from(data_dir=data_dir)
    shutdown.stop(settings.data_dir)
    out.print(f"stopped everything of {settings.data_dir}")


@app.command()
def env(data_dir: DataDir = None) -> None:
    """Print the environment that official clients need: eval "$(openrdb env)"."""
    for name, value in read_credentials(settings_from(data_dir=data_dir).data_dir).items():
        print(f"export {name}={value}")


@app.command()
def doctor(data_dir: DataDir = None) -> None:
    """Say what works on this host, and why not what does not; exit code 1 if serving cannot."""
    from openrdb import doctor as checks  # noqa: PLC0415

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
    from openrdb import demo as tour  # noqa: PLC0415

    process.clean_environment()
    tour.run(settings_from(data_dir=data_dir), engine, out)


@app.command("run", context_settings={"ignore_unknown_options": True})
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


@engines_app.command("list")
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


@engines_app.command("install")
def engines_install(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Versions, as PostgreSQL-17 or MySQL-9; default: all current."),
    ] = None,
) -> None:
    """Download engine versions into the cache and verify them; does nothing where they are."""
    from openrdb import installation  # noqa: PLC0415

    installation.run(settings_from(), names or [], out, err)


@keys_app.command("create")
def keys_create(
    data_dir: DataDir = None,
    project: Annotated[
        str | None, typer.Option(help="The project's name or id; default: the default one.")
    ] = None,
    organization: Annotated[
        bool, typer.Option("--organization", help="For all projects; --project is its default.")
    ] = False,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="It may look, and change nothing.")
    ] = False,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
) -> None:
    """Make a key and print its environment: eval "$(openrdb keys create)". Its secret is shown now
    and never again."""
    from openrdb import keys  # noqa: PLC0415

    environment = keys.create(
        settings_from(data_dir=data_dir),
        project,
        whole_organization=organization,
        read_only=read_only,
        description=description,
    )
    for name, value in environment.items():
        print(f"export {name}={value}")


@keys_app.command("list")
def keys_list(data_dir: DataDir = None) -> None:
    """Show the keys, without their secrets, which are not kept."""
    from openrdb import keys  # noqa: PLC0415

    table = Table("access key", "scope", "kind", "description", "created", box=None)
    table.columns[0].no_wrap = True
    for key in keys.listed(settings_from(data_dir=data_dir)):
        created = f"{key.created_at:%Y-%m-%d %H:%M}"
        cells = (key.access_key, key.scope, key.kind, key.description, created)
        table.add_row(*(Text(cell, overflow="fold") for cell in cells))
    out.print(table)


@keys_app.command("revoke")
def keys_revoke(
    access_key: Annotated[str, typer.Argument(help="The key's access key.")],
    data_dir: DataDir = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also the key that `openrdb env` prints.")
    ] = False,
) -> None:
    """Make a key useless, at once."""
    from openrdb import keys  # noqa: PLC0415

    keys.revoke(settings_from(data_dir=data_dir), access_key, force=force)
    out.print(f"revoked {access_key}")


@keys_app.command("rotate-master")
def keys_rotate_master(data_dir: DataDir = None) -> None:
    """Seal all secrets with a new master key. The service must be stopped; databases run on."""
    from openrdb import rotation  # noqa: PLC0415

    settings = settings_from(data_dir=data_dir)
    rotation.rotate_master_key(settings)
    out.print(f"{settings.data_dir} has a new master key; back it up, apart from the state")


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        out.print(f"openrdb {__version__}")
        raise typer.Exit


def main() -> None:
    try:
        _or_say_why(app)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
