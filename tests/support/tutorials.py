"""Tutorials, run as a reader would: their blocks of shell, one after the other in one shell.

In a tutorial a block of `sh` is run, and the block of `text` after it is what it prints.
A block of `bash` is shown only, as what needs another machine; a comment that begins with `<!-- run`
is run and not shown, in place of such a block.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_BLOCKS = re.compile(
    r"^(?P<indent> *)```(?P<language>sh|text)\n(?P<text>.*?)^(?P=indent)```$"
    r"|^<!-- run\n(?P<hidden>.*?)^-->$",
    re.MULTILINE | re.DOTALL,
)
_MARK = "\x1e"
_VARIES = {
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}": "[0-9a-f-]{36}",  # an id
    r"\b(?=[0-9]*[a-f])(?=[a-f]*[0-9])[0-9a-f]{8}\b": "[0-9a-f]{8}",  # its first characters
    r"\bSCW[A-Z0-9]{17}\b": "SCW[A-Z0-9]{17}",  # an access key
    r"\d+": r"\d+",
}
"""What is another one each time, and what it matches."""


@dataclass(frozen=True)
class Block:
    """What is run, and what it prints."""

    code: str
    output: str
    """Empty: not told."""


def blocks(text: str) -> Iterator[Block]:
    """Yield what a tutorial lets its reader run."""
    found = list(_BLOCKS.finditer(text))
    for number, match in enumerate(found):
        if match["hidden"]:
            yield Block(match["hidden"], "")
        elif match["language"] == "sh":
            after = found[number + 1] if number + 1 < len(found) else None
            told = after is not None and after["language"] == "text"
            yield Block(_text(match), _text(after) if told and after else "")


def _text(match: re.Match[str]) -> str:
    return re.sub(f"^{match['indent']}", "", match["text"], flags=re.MULTILINE)


def run(
    tutorial: Sequence[Block],
    command: Sequence[str],
    environment: Mapping[str, str],
    directory: Path,
    timeout: float = 1100,
) -> list[str]:
    """Run a tutorial in one shell; return what each block printed.

    Args:
        command: What runs a shell: `bash`, and what precedes it.

    Raises:
        AssertionError: a command failed; the message has all that was printed.
    """
    mark = "printf '%s' '" + _MARK + "'\n"
    script = "set -eu\nexec 2>&1 </dev/null\n" + mark.join(one.code for one in tutorial)
    path = directory / "tutorial.sh"
    path.write_text(script)
    # A file, as what the tutorial leaves in the background would keep a pipe open.
    with (directory / "printed").open("wb") as printed:
        done = subprocess.run(
            [*command, str(path)],
            env=dict(environment),
            cwd=directory,
            stdout=printed,
            check=False,
            timeout=timeout,
        )
    outputs = (directory / "printed").read_text(errors="replace").split(_MARK)
    failed = tutorial[len(outputs) - 1].code
    assert done.returncode == 0, f"this failed:\n{failed}\nIt printed:\n{outputs[-1]}"
    return outputs


def differences(block: Block, printed: str) -> list[str]:
    """Return the lines of a block's output that were not printed, in this order.

    Numbers and ids may be others, and `…` stands for anything.
    """
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    missing = []
    for line in filter(str.strip, block.output.splitlines()):
        pattern = _pattern(" ".join(line.split()))
        at = next((n for n, one in enumerate(lines) if pattern.fullmatch(one)), None)
        if at is None:
            missing.append(line)
        else:
            lines = lines[at + 1 :]
    return missing


def _pattern(line: str) -> re.Pattern[str]:
    """Return what matches a line with other numbers and ids."""
    varies = re.compile("|".join(f"({one})" for one in _VARIES))
    kinds = list(_VARIES.values())
    found, end = "", 0
    for match in re.finditer(f"…|{varies.pattern}", line):
        found += re.escape(line[end : match.start()])
        found += kinds[match.lastindex - 1] if match.lastindex else ".*"
        end = match.end()
    return re.compile(found + re.escape(line[end:]))
