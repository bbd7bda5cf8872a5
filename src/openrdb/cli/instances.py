"""`openrdb list`, `openrdb status` and `openrdb connect`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from openrdb.cli.common import DataDir, out, settings_from
from openrdb.engines.names import FIRST_DATABASE
from openrdb.errors import HostError

if TYPE_CHECKING:
    from openrdb.cli.state.instances import Deployment, ListedInstance


def _names(context: typer.Context, incomplete: str) -> Iterator[str]:
    """Yield the instances' names that begin so: for the shell's completion."""
    from openrdb.cli.state import instances  # noqa: PLC0415

    given: Path | None = context.params.get("data_dir")
    with suppress(HostError):
        for one in instances.listed(settings_from(data_dir=given)):
            if one.name.startswith(incomplete):
                yield one.name


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_WHICH = "The instance's name, its id, or the id's first characters."
Name = Annotated[str, typer.Argument(help=_WHICH, autocompletion=_names)]
OptionalName = Annotated[str | None, typer.Argument(help=_WHICH, autocompletion=_names)]

app = typer.Typer()


@app.command("list")
def list_instances(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show all instances, of all projects and regions; the service may be stopped."""
    from openrdb.cli.state import instances  # noqa: PLC0415

    found = instances.listed(settings_from(data_dir=data_dir))
    if as_json:
        out.print_json(data=[asdict(one) for one in found])
        return
    table = Table("name", "engine", "status", "nodes", "endpoints", "id", box=None)
    for column in table.columns[1:]:
        column.no_wrap = True
    for one in found:
        nodes, endpoints = _availability(one), "\n".join(one.endpoints)
        cells = (one.name, one.engine, one.status, nodes, endpoints, one.id[:8])
        table.add_row(*(Text(cell, overflow="fold") for cell in cells))
    out.print(table)


def _availability(one: ListedInstance) -> str:
    count = str(len(one.nodes))
    if not one.is_ha_cluster:
        return count
    return f"{count}, {'protected' if one.is_protected else 'not protected'}"


@app.command()
def status(name: OptionalName = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show what runs and what is in trouble; of one instance, all that is known here."""
    from openrdb.cli.state import instances  # noqa: PLC0415

    settings = settings_from(data_dir=data_dir)
    shown: ListedInstance | Deployment
    if name is None:
        shown = deployment = instances.deployment(settings)
        lines = _of_deployment(deployment, settings.data_dir)
    else:
        shown = one = instances.details(settings, name)
        lines = [
            f"{field.replace('_', ' '):13} {_text(value)}" for field, value in asdict(one).items()
        ]
    if as_json:
        out.print_json(data=asdict(shown))
        return
    for line in lines:
        out.print(Text(line), soft_wrap=True)


def _of_deployment(found: Deployment, data_dir: Path) -> list[str]:
    watched = "the agent runs" if found.is_watched else "no agent runs: nothing starts databases"
    counts = ", ".join(f"{count} {state}" for state, count in found.instances.items())
    return [
        f"data       {data_dir}",
        f"service    {'serves' if found.is_served else 'is stopped: openrdb serve'}",
        f"host       {watched}",
        f"instances  {counts or 'none'}",
        *(
            f"           {one.name} ({one.id}) is {one.status}: {one.reason}"
            for one in found.troubles
        ),
    ]


def _text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(_part(one) if isinstance(one, dict) else str(one) for one in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value if value is not None else "-")


def _part(part: dict[str, Any]) -> str:
    """Return a node or a read replica in a few words."""
    return _node(part) if "role" in part else _replica(part)


def _replica(replica: dict[str, Any]) -> str:
    why = f": {replica['reason']}" if replica["reason"] else ""
    return " ".join([f"{replica['id'][:8]} ({replica['status']}{why})", *replica["endpoints"]])


def _node(node: dict[str, Any]) -> str:
    lag = f", {node['lag']} s behind" if node["lag"] is not None else ""
    return f"{node['role']} {node['id'][:8]} ({node['state']}{lag})"


@app.command(context_settings={"ignore_unknown_options": True})
def connect(
    name: Name,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(help="The client's own arguments; after -- those that are ours too."),
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", help="Default: the user of the instance's creation.")
    ] = None,
    database: Annotated[str, typer.Option("--database", help="The database.")] = FIRST_DATABASE,
    data_dir: DataDir = None,
) -> None:
    """Connect to an instance with the engine's client, by TLS verified against its certificate.

    The client asks for the password, or takes it from PGPASSWORD or MYSQL_PWD.
    """
    given = dict(os.environ)  # before ours is cleaned of what drivers read
    from openrdb.cli import clients  # noqa: PLC0415
    from openrdb.cli.state import instances  # noqa: PLC0415

    settings = settings_from(data_dir=data_dir)
    access = instances.access(settings, name)
    login = user or access.first_user
    if login is None:
        raise HostError(f"the instance {access.name} was created without a user; pass --user")
    certificate = clients.certificate_in_memory(access.certificate)
    target = clients.Target(access, login, database, certificate)
    command = clients.command(settings, target, arguments or [], given)
    os.execve(command.arguments[0], command.arguments, command.environment)  # noqa: S606
