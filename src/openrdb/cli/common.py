"""What all commands share: the consoles, the option for the data directory, the configuration."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from openrdb.config import Settings, load_settings
from openrdb.errors import HostError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_UNFOLDED: Final = 10_000
"""Columns of a line that nobody looks at."""


def _console(*, stderr: bool = False) -> Console:
    """Return a console that folds no line of what is read by another program or kept in a file."""
    made = Console(stderr=stderr)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = _UNFOLDED
    return made


out = _console()
err = _console(stderr=True)


DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where everything is kept.")]


def settings_from(**flags: Any) -> Settings:  # noqa: ANN401
    """Return the configuration, with what the command line gives.

    Raises:
        HostError: one of its values is wrong; one line says which.
    """
    return load_settings(**{name: value for name, value in flags.items() if value is not None})


def plain(words: str) -> Text:
    """Return what to print of words that may be anybody's, as names are: no markup, nothing that a
    terminal obeys, and what cannot be seen or encoded by its number."""
    return Text("".join(one if one.isprintable() or one == "\n" else _number(one) for one in words))


def _number(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()


def exit_if_refused(do: Callable[[], None]) -> None:
    """Call a function; print one line and exit with 1 if it refuses, or finds no space on a disk."""
    try:
        do()
    except HostError as error:
        refusal = str(error)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        refusal = str(error)
    else:
        return
    err.print(Text("openrdb:", "red"), plain(refusal), soft_wrap=True, highlight=False)
    sys.exit(1)
