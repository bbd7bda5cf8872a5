"""`openrdb systemd`: the units by which systemd serves a data directory from the machine's start on."""

from __future__ import annotations

import shlex
import sys
from importlib.resources import files as resources
from pathlib import Path
from typing import Annotated

import typer

from openrdb.cli.common import DataDir, settings_from
from openrdb.cli.listing import AsJson, print_details
from openrdb.errors import HostError

_SERVICE, _DATABASES = "openrdb.service", "openrdb-databases.service"
_TARGETS = {False: "multi-user.target", True: "default.target"}
_CONFIGURATIONS = {False: "/etc/openrdb", True: "%E/openrdb"}
"""Of the system's and of a user's units: `%E` is `~/.config`."""

app = typer.Typer()


@app.command()
def systemd(
    data_dir: DataDir = None,
    user: Annotated[
        bool, typer.Option("--user", help="For your own systemd, without root.")
    ] = False,
    directory: Annotated[
        Path | None,
        typer.Option("--directory", help="Write them there: /etc/systemd/system, for example."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the units that serve this data directory, or write them into a directory."""
    made = units(_program(), settings_from(data_dir=data_dir).data_dir, user=user)
    if directory is None:
        print_details(made, (f"# {name}\n{text}" for name, text in made.items()), as_json=as_json)
        return
    try:
        for name, text in made.items():
            (directory / name).write_text(text)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise HostError(f"cannot write to {directory}: {why}") from None
    scope = "systemctl --user" if user else "systemctl"
    then = f"{scope} daemon-reload && {scope} enable --now openrdb"
    shown = {"written": [str(directory / name) for name in made], "next": then}
    print_details(shown, [f"wrote {', '.join(made)}; now: {then}"], as_json=as_json)


def units(program: list[str], data_dir: Path, *, user: bool) -> dict[str, str]:
    """Return the texts of the units, by their names.

    Args:
        program: What `openrdb` is started by.
        user: For a user's own manager, not the system's.
    """
    values = {
        "@PROGRAM@": shlex.join(map(_escaped, program)),
        "@DATA_DIR@": _escaped(str(data_dir)),
        "@TARGET@": _TARGETS[user],
        "@DATABASES@": _DATABASES,
        "@CONFIGURATION@": _CONFIGURATIONS[user],
    }
    found = {}
    for name in (_SERVICE, _DATABASES):
        text = resources("openrdb.cli").joinpath("units", name).read_text()
        for mark, value in values.items():
            text = text.replace(mark, value)
        if user:  # a user's manager knows no network
            text = text.replace("network-online.target ", "")
        found[name] = text
    return found


def _program() -> list[str]:
    """Return the absolute path of this very program."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":  # python -m openrdb
        return [sys.executable, "-m", "openrdb"]
    return [str(called.absolute())]


def _escaped(text: str) -> str:
    """Return a word of a command as systemd reads it: % and $ are its own."""
    return text.replace("%", "%%").replace("$", "$$")
