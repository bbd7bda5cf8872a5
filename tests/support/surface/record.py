"""What a run of the tests tried of the API, written down as it happens: see `docs/api.md`.

Each process of the tests leaves a file in the directory `API_RECORD`, a new one if nobody says which.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import requests

from tests.support.surface import sdk

VARIABLE = "API_RECORD"
ENGINES = ("PostgreSQL", "MySQL")
_FLOWS, _GENERATED = "test_recordings.py", "test_schemathesis.py"


class Fact(NamedTuple):
    """Something that was tried, and succeeded."""

    kind: Literal["sdk", "flow", "argument", "value", "answer"]
    """A call through the SDK or of a recorded flow; an argument that was sent; a value of an
    enumeration, and a field of an answer."""
    of: str
    """The operation, the enumeration or the type."""
    what: str
    """The engine of a call, which is empty where it has none; the argument, value or field."""


@dataclass
class Recorder:
    """Knows which engine the ids belong to that it has seen."""

    directory: Path

    def __post_init__(self) -> None:
        self.facts: dict[Fact, str] = {}
        """With the test that was first."""
        self._engines: dict[str, str] = {}

    def install(self) -> None:
        send = requests.Session.send

        def recorded(session: Any, request: Any, **options: Any) -> requests.Response:
            response = send(session, request, **options)
            self._note(request, response)
            return response

        requests.Session.send = recorded  # type: ignore[method-assign]

    def write(self) -> None:
        lines = [json.dumps([*fact, test]) for fact, test in sorted(self.facts.items())]
        (self.directory / f"{os.getpid()}.jsonl").write_text("\n".join(lines))

    def _note(self, request: requests.PreparedRequest, response: requests.Response) -> None:
        url = urlsplit(str(request.url))
        operation = sdk.operation_of(str(request.method), url.path)
        if operation is None or not response.ok:
            return
        sent: dict[str, object] = dict(parse_qsl(url.query)) | _json(request.body)
        answer = _json(response.content)
        engine = self._engine(operation, url.path, sent, answer)
        self._learn(answer, engine)
        test = os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0]
        if _GENERATED in test:  # by chance, so in one run and not in the next
            return
        for fact in self._facts(operation, engine, sent, answer, _is_of_sdk(request), test):
            self.facts.setdefault(fact, test.partition("[")[0])

    def _facts(
        self,
        operation: sdk.Operation,
        engine: str,
        sent: dict[str, object],
        answer: dict[str, object],
        is_of_sdk: bool,
        test: str,
    ) -> Iterator[Fact]:
        if is_of_sdk:
            yield Fact("sdk", operation.name, engine)
        elif _FLOWS in test:
            yield Fact("flow", operation.name, engine)
        for name in operation.arguments:
            if _is_sent(sent, name.split(".")):
                yield Fact("argument", operation.name, name)
        enumerations = sdk.enumerations()
        for kind, values in ((operation.request, sent), (operation.response, answer)):
            for of, what in sdk.seen(kind, values):
                if of in enumerations:
                    yield Fact("value", of, what)
                elif kind is operation.response:
                    yield Fact("answer", of, what)

    def _engine(
        self,
        operation: sdk.Operation,
        path: str,
        sent: dict[str, object],
        answer: dict[str, object],
    ) -> str:
        """The name of the engine that a call is about; empty where there is none, or several."""
        match = operation.pattern.fullmatch(path)
        ids = [*match.groups()] if match is not None else []
        ids += [str(value) for name, value in sent.items() if name.endswith("_id")]
        for one in ids:
            if one in self._engines:
                return self._engines[one]
        return _name(answer.get("engine")) or _name(sent.get("engine"))

    def _learn(self, value: object, engine: str) -> None:
        if isinstance(value, list):
            for one in value:
                self._learn(one, engine)
        elif isinstance(value, dict):
            instance = self._engines.get(str(value.get("instance_id")), "")
            engine = _name(value.get("engine")) or instance or engine
            if engine and isinstance(value.get("id"), str):
                self._engines[value["id"]] = engine
            self._learn([one for one in value.values() if isinstance(one, dict | list)], engine)


def _is_sent(value: object, names: Sequence[str]) -> bool:
    if not names:
        return value is not None
    if isinstance(value, list):
        return any(_is_sent(one, names) for one in value)
    return isinstance(value, dict) and _is_sent(value.get(names[0]), names[1:])


def _name(engine: object) -> str:
    name = str(engine).partition("-")[0]
    return name if name in ENGINES else ""


def _json(content: object) -> dict[str, object]:
    try:
        found = json.loads(content) if isinstance(content, str | bytes) else None
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_of_sdk(request: requests.PreparedRequest) -> bool:
    return "scaleway-sdk-python" in str(request.headers.get("User-Agent"))


def read(files: Iterable[Path]) -> dict[Fact, str]:
    """Return the facts that some processes have left, each with a test."""
    found: dict[Fact, str] = {}
    for file in files:
        for line in file.read_text().splitlines():
            kind, of, what, test = json.loads(line)
            fact = Fact(kind, of, what)
            found[fact] = min(test, found.get(fact, test))
    return found


def start() -> Recorder:
    """Record what this process does from now on."""
    if VARIABLE not in os.environ:
        os.environ[VARIABLE] = tempfile.mkdtemp(prefix="ordb-api-")
        atexit.register(shutil.rmtree, os.environ[VARIABLE], ignore_errors=True)
    directory = Path(os.environ[VARIABLE])
    directory.mkdir(parents=True, exist_ok=True)
    recorder = Recorder(directory)
    recorder.install()
    return recorder
