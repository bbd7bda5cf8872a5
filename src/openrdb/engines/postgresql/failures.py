"""Why a PostgreSQL server ended, by its own words."""

from __future__ import annotations

import re
from pathlib import Path

from openrdb.engines import failures
from openrdb.system import files

_LINE = re.compile(r"\b(LOG|ERROR|FATAL|PANIC): +(.+)(?:\n.*\bDETAIL: +(.+))?")
_LOADED = re.compile(
    r"^.*redirecting log output to logging collector process.*\n?(?:.*\bHINT: .*\n?)?", re.MULTILINE
)
"""The last of what goes to standard error: what follows there is of a later start."""
_STARTED = re.compile(r"LOG: +starting PostgreSQL")
_UNTELLING = re.compile(
    r"configuration file .* contains errors|could not create any (TCP/IP|Unix-domain) sockets"
    r"|could not load .*pg_hba\.conf"
)
"""These stand for a complaint that was logged before them."""
_COMPLAINT = re.compile(
    r"could not |invalid |unrecognized |syntax error|parameter |.* is (outside|not)|must be"
)
_ASIDE = re.compile(r"the database system is |terminating walreceiver process")
"""What clients are told that come too early, and what a receiver says that is told to end."""
_KILLED = re.compile(r"LOG: +.* \(PID \d+\) was terminated by signal 9\b")
"""A process that the main process cannot do without while it starts."""
_DATED = re.compile(r"^[\d-]+ [\d:.]+ \w+ \[(\d+)\]", re.MULTILINE)
_RAW = re.compile(r"^(?:postgres: +)(.+(?:\n(?!\d{4}-|postgres: |Run ).+)*)", re.MULTILINE)
"""What is written before messages have a severity; it may go over several lines."""


def reason(log: Path, output: Path) -> str:
    """Return the first complaint of the last start.

    What it wrote before it opened its log is in `output`, after what earlier starts wrote there.
    """
    early = _LOADED.split(files.read_tail(output))[-1]
    # Where it wrote something there, and opened no log, the newest log is of an earlier start.
    if found := _complaint(_last_process(early)) or failures.last_line(early):
        return found
    newest = failures.latest(log, "*.log")
    text = files.read_tail(newest) if newest else ""
    starts = list(_STARTED.finditer(text))
    last = text[starts[-1].start() :] if starts else text
    if _KILLED.search(last):
        return failures.KILLED
    return _complaint(last) or failures.UNKNOWN


def first_complaint(text: str) -> str:
    """Return the first complaint in what a program wrote."""
    return _complaint(text) or failures.last_line(text) or failures.UNKNOWN


def _last_process(text: str) -> str:
    """Return the part of an output that was written by the process that wrote last."""
    dated = list(_DATED.finditer(text))
    if not dated:
        return text
    if raw := _RAW.search(text, dated[-1].end()):
        return text[raw.start() :]
    first = next(line for line in dated if line[1] == dated[-1][1])
    return text[first.start() :]


def _complaint(text: str) -> str | None:
    lines = [
        (level, f"{said}: {detail}" if detail else said)
        for level, said, detail in _LINE.findall(text)
    ]
    raw: list[str] = _RAW.findall(text)
    fatal = [
        at for at, (level, said) in enumerate(lines) if level != "LOG" and not _ASIDE.match(said)
    ]
    if raw:
        return " ".join(raw[-1].split())
    if not fatal:
        return None
    first = fatal[0]
    if _UNTELLING.search(lines[first][1]):
        before = [said for _, said in lines[:first] if _COMPLAINT.match(said)]
        return before[0] if before else lines[first][1]
    return lines[first][1]
