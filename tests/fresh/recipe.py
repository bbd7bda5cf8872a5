"""What a container recipe says, as far as ours goes: no engine is needed to read it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Step:
    """A step of a build, with what is in force by then."""

    word: str
    """`RUN` or `COPY`."""
    text: str
    environment: dict[str, str]
    directory: str


@dataclass
class Image:
    """What a recipe makes."""

    base: str = ""
    steps: list[Step] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    directory: str = "/"
    volumes: list[str] = field(default_factory=list)
    ports: list[str] = field(default_factory=list)
    stop_signal: str = "SIGTERM"
    entry: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)

    @property
    def command(self) -> list[str]:
        return [*self.entry, *self.arguments]


def read(path: Path) -> Image:
    """Return what a recipe makes.

    Raises:
        ValueError: it has an instruction that is not known here.
    """
    image = Image()
    for word, text in _instructions(path.read_text()):
        match word:
            case "FROM":
                image.base = text
            case "RUN" | "COPY":
                image.steps.append(Step(word, text, dict(image.environment), image.directory))
            case "ENV":
                name, _, value = text.partition("=")
                image.environment[name] = value
            case "WORKDIR":
                image.directory = text
            case "VOLUME":
                image.volumes.append(text)
            case "EXPOSE":
                image.ports.append(text)
            case "STOPSIGNAL":
                image.stop_signal = text
            case "ENTRYPOINT":
                image.entry = json.loads(text)
            case "CMD":
                image.arguments = json.loads(text)
            case _:
                raise ValueError(f"{path} has {word}, which is not known here")
    return image


def _instructions(text: str) -> list[tuple[str, str]]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n", " ", "\n".join(lines))
    found = [line.partition(" ") for line in whole.splitlines() if line.strip()]
    return [(word, rest.strip()) for word, _, rest in found]
