"""Log lines, for people or as JSON, each with what it is about: the request, the operation."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

LogFormat = Literal["text", "json"]

REQUEST: Final = "request"
OPERATION: Final = "operation"
_TEXT = "%(asctime)s %(levelname)s %(message)s"
_NOTHING: Mapping[str, str] = MappingProxyType({})
_LONGEST = 10**6
"""Bytes of a process's own file; two older ones are kept."""
_LIBRARIES = ("dbos", "uvicorn")
"""Which would make handlers of their own."""

_subjects: ContextVar[Mapping[str, str]] = ContextVar("log_subjects", default=_NOTHING)


def add(name: str, value: str) -> None:
    """Let the lines of this context, of its threads and tasks too, say what they are about."""
    _subjects.set({**_subjects.get(), name: value})


@contextmanager
def about(name: str, value: str | None) -> Iterator[None]:
    """Let the lines within say what they are about; nothing more where the value is None."""
    token = _subjects.set({**_subjects.get(), name: value} if value else _subjects.get())
    try:
        yield
    finally:
        _subjects.reset(token)


def subject(name: str) -> str | None:
    """Return what lines of this context say of one name."""
    return _subjects.get().get(name)


class _Text(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        line = super().formatMessage(record)
        return " ".join([line, *(f"{name}={value}" for name, value in _subjects.get().items())])


class _Json(logging.Formatter):
    """One object a line: `time`, `level`, `logger`, `message`, what it is about, `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_subjects.get(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class OwnFile(RotatingFileHandler):
    """A file that takes a process's lines and whatever else it says, and nobody has to read from.

    What a full disk does not take is left out, and the process goes on. It starts without the file,
    too, and tries to open it at each line.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(
            path,
            maxBytes=_LONGEST,
            backupCount=2,
            encoding="utf-8",
            delay=True,
            errors="backslashreplace",
        )
        with suppress(OSError):
            self.stream = self._open()

    def _open(self) -> TextIOWrapper:
        stream = super()._open()
        for descriptor in (1, 2):
            os.dup2(stream.fileno(), descriptor)
        return stream

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Drop what could not be written, and open the file again for the next line; report in the file
        what is not the disk's fault."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)
            return
        stream, self.stream = self.stream, None
        if stream is not None:
            with suppress(OSError, ValueError):
                stream.close()


def configure(
    level: str, form: LogFormat, handler: logging.Handler | None = None, text: str = _TEXT
) -> None:
    """Log from a level on, to standard error unless a handler is given.

    Args:
        text: how lines for people begin, in the form of `logging`.
    """
    handler = handler or logging.StreamHandler()
    handler.setFormatter(_Json() if form == "json" else _Text(text))
    logging.basicConfig(level=level, handlers=[handler])
    for name in _LIBRARIES:
        logging.getLogger(name).addHandler(logging.NullHandler())
