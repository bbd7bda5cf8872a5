"""Write `docs/api.md`: what of the API the tests try, by test, and what they do not, with the reason.

API_RECORD=/tmp/record pytest …
python -m tests.support.surface.table /tmp/record
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tests.support.recorded import FLOWS
from tests.support.surface import sdk
from tests.support.surface.record import ENGINES, Fact, read

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "api.md"
_REASONS = Path(__file__).with_name("reasons.toml")
_BEGINNING = (
    "# The API, and what tries it\n"
    "Generated from a run of the tests ([tests/README.md](../tests/README.md)): each entry was sent, or"
    " answered, in a request that succeeded, and a test is named in which it was.\n"
    "What the official SDK knows is the measure: its operations, arguments, enumerations and types of"
    " answers; what is within an argument is named after it.\n"
    "Where an answer differs from the provider's, and when a resource is `locked`, is in"
    " [api-differences.md](api-differences.md).\n"
)
_SAMPLED = "tests/faults/"
NOTHING, UNRECORDED = "—", "no recording"


def expected() -> list[Fact]:
    """Return all that should be tried."""
    facts = [
        Fact("sdk", one.name, engine) for one in sdk.operations().values() for engine in ENGINES
    ]
    facts += [Fact("argument", o.name, n) for o in sdk.operations().values() for n in o.arguments]
    facts += [Fact("value", of, one) for of, values in sdk.enumerations().items() for one in values]
    facts += [Fact("answer", of, one) for of, names in sdk.answered().items() for one in names]
    return facts


def reasons() -> dict[str, str]:
    """Return why something is not tried, by its name in the list of the document."""
    return {str(k): str(v) for k, v in tomllib.loads(_REASONS.read_text()).items()}


def name_of(fact: Fact) -> str:
    if fact.kind == "sdk":
        return f"{fact.of} on {fact.what}"
    return f"{fact.of}.{fact.what}"


def holes(facts: dict[Fact, str]) -> list[Fact]:
    """Return what should be tried and is not; calls without an engine count for both."""
    return [one for one in expected() if _test(facts, one) is None]


def _test(facts: dict[Fact, str], fact: Fact) -> str | None:
    found = facts.get(fact)
    return facts.get(fact._replace(what="")) if found is None and fact.kind == "sdk" else found


def document(facts: dict[Fact, str]) -> str:
    """Return the whole text."""
    parts = [_BEGINNING, "## Operations", *_operations(facts)]
    for title, kind, names in (
        ("Arguments", "argument", "| argument | test |"),
        ("Values of enumerations", "value", "| value | test |"),
        ("Fields of answers", "answer", "| field | test |"),
    ):
        rows = [(name_of(f), _short(_test(facts, f))) for f in expected() if f.kind == kind]
        parts += ["", f"## {title}", names, "| --- | --- |", *_rows(rows)]
    why = reasons()
    missing = [(name_of(one), why.get(name_of(one), "")) for one in holes(facts)]
    parts += ["", "## Not tried", "| what | why |", "| --- | --- |", *_rows(missing)]
    return "\n".join(parts) + "\n"


def _operations(facts: dict[Fact, str]) -> Iterator[str]:
    yield (
        "| operation | by the SDK on PostgreSQL | on MySQL "
        "| in a recorded flow of PostgreSQL | of MySQL |"
    )
    yield "| --- | --- | --- | --- | --- |"
    known = _recorded()
    for one in sdk.operations().values():
        calls = [_short(_test(facts, Fact("sdk", one.name, engine))) for engine in ENGINES]
        flows = [
            _short(
                facts.get(Fact("flow", one.name, engine)) or facts.get(Fact("flow", one.name, ""))
            )
            if (one.name, engine) in known
            else UNRECORDED
            for engine in ENGINES
        ]
        yield from _rows([(f"{one.name}: {one.method} {one.path}", *calls, *flows)])


def _recorded() -> set[tuple[str, str]]:
    """Return which operations the recorded flows have, with the engines of their instances."""
    found = set()
    for steps in FLOWS.values():
        asked = [one["request"] for one in steps if isinstance(one["request"], dict)]
        engines = {str(one.get("engine")).partition("-")[0] for one in asked}
        for step in steps:
            if (operation := sdk.operation_of(step["method"], step["path"])) is not None:
                found |= {(operation.name, engine) for engine in engines & {*ENGINES}}
    return found


def tried_by_now(facts: dict[Fact, str]) -> list[str]:
    """Return what the document says is not tried, and a run tried: by what is in each run."""
    tests = {name_of(one): _test(facts, one) or "" for one in expected()}
    return sorted(
        name for name in reasons() if tests[name] and not tests[name].startswith(_SAMPLED)
    )


def _rows(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _short(test: str | None) -> str:
    return NOTHING if test is None else f"`{test.removeprefix('tests/')}`"


if __name__ == "__main__":
    known = read(Path(sys.argv[1]).glob("*.jsonl"))
    DOCUMENT.write_text(document(known))
    for one in holes(known):
        if name_of(one) not in reasons():
            print(f"neither tried nor explained: {name_of(one)}")
