"""What commands print to a pipe or into a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from openrdb.cli.common import exit_if_refused, plain
from openrdb.cli.instances import _of_deployment
from openrdb.cli.state.deployment import Deployment, ListedHost
from openrdb.errors import HostError

ROWS = """
from openrdb.cli.listing import print_listing
print_listing(["a" * 100, "b" * 100], ["first", "second"], lambda one: (one, one), as_json=False)
"""


@pytest.mark.parametrize(("environment", "lines"), [({}, 3), ({"COLUMNS": "80"}, 7)])
def test_a_row_is_a_line_for_other_programs(environment: dict[str, str], lines: int) -> None:
    """Unless it is said how wide they are."""
    source = str(Path(__file__).parents[2] / "src")
    done = subprocess.run(
        [sys.executable, "-c", ROWS],
        env={"PYTHONPATH": source} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(done.stdout.splitlines()) == lines


@pytest.mark.parametrize("is_watched", [True, False])
def test_what_nobody_watches_was_seen_before(is_watched: bool) -> None:
    host = ListedHost("an id", "local", is_watched, 1, None)
    made = Deployment(True, is_watched, [host], {"ready": 1}, {"running": 2}, {}, 0, [], [])
    (nodes,) = (one for one in _of_deployment(made, Path("/data")) if one.startswith("nodes"))
    assert ("when last seen" in nodes) is not is_watched


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        ("[red]é[/blue]\n🐘", "[red]é[/blue]\n🐘"),
        ("a\x1b[2Jb\rc\x07", r"a\x1b[2Jb\rc\x07"),
        ("a\u202eb\u200fc", r"a\u202eb\u200fc"),
        ("a\udcffb", r"a\udcffb"),
    ],
)
def test_words_of_anybody_are_only_words(words: str, printed: str) -> None:
    assert plain(words).plain == printed


def test_a_refusal_may_say_anything(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> None:
        raise HostError("no such file: [/x]\udcff\x1b[2J")

    with pytest.raises(SystemExit):
        exit_if_refused(refuse)
    assert capsys.readouterr().err == "openrdb: no such file: [/x]\\udcff\\x1b[2J\n"
