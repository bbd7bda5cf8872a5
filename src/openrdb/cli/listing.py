"""How commands print what they list: a table for people, and with --json one JSON document for scripts.

The only place that does: a test looks that each command which lists something comes here, and takes
`--json`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from openrdb.cli.common import out, plain

T = TypeVar("T")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_listing(
    rows: Sequence[T],
    columns: Sequence[str],
    cells: Callable[[T], Sequence[str | Text]],
    *,
    as_json: bool,
    whole: Collection[str] = (),
) -> None:
    """Print rows, each as a line of a table or as an object of a JSON array.

    Args:
        cells: Returns a row's texts, one for each column.
        whole: The columns whose texts are never folded.
    """
    if as_json:
        out.print_json(data=[_plain(row) for row in rows])
        return
    table = Table(*columns, box=None)
    for column in table.columns:
        column.no_wrap = column.header in whole
    for row in rows:
        texts = [one if isinstance(one, Text) else plain(one) for one in cells(row)]
        for text in texts:
            text.overflow = "fold"
        table.add_row(*texts)
    out.print(table)


def print_details(
    shown: Any,  # noqa: ANN401
    lines: Iterable[str],
    *,
    as_json: bool,
    console: Console = out,
) -> None:
    """Print lines, or in their place one thing as a JSON object."""
    if as_json:
        console.print_json(data=_plain(shown))
        return
    for line in lines:
        console.print(plain(line), soft_wrap=True)


def print_environment(variables: Mapping[str, str], *, as_json: bool) -> None:
    """Print what a shell evaluates, or a JSON object of the variables."""
    if as_json:
        out.print_json(data=dict(variables))
        return
    for name, value in variables.items():
        print(f"export {name}={value}")


def _plain(shown: Any) -> Any:  # noqa: ANN401
    """Return what JSON can hold of something that is shown."""
    if is_dataclass(shown) and not isinstance(shown, type):
        return _plain(asdict(shown))
    if isinstance(shown, dict):
        return {name: _plain(value) for name, value in shown.items()}
    if isinstance(shown, (list, tuple)):
        return [_plain(one) for one in shown]
    return shown.isoformat() if isinstance(shown, datetime) else shown
