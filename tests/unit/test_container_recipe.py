"""The container recipe, as far as can be seen without building it; `make test-image` does that."""

from __future__ import annotations

import fnmatch

from tests.fresh.recipe import read
from tests.support.service import ROOT


def test_what_it_copies_is_there_and_let_through() -> None:
    image = read(ROOT / "Containerfile")
    copied = [one for step in image.steps if step.word == "COPY" for one in step.text.split()[:-1]]
    assert {"pyproject.toml", "requirements.lock", "src"} <= set(copied)
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert ignored[0] == "*"
    for name in copied:
        assert (ROOT / name).exists()
        assert any(fnmatch.fnmatch(f"!{name}", line) for line in ignored), name


def test_what_it_starts() -> None:
    image = read(ROOT / "Containerfile")
    assert image.command[1] == "serve"
    assert image.volumes == [image.command[-1]]
    assert image.stop_signal == "SIGTERM"
    assert image.environment["PATH"].startswith(image.command[0].removesuffix("/openrdb"))
