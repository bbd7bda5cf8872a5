"""A storm of a minute: what was acknowledged is in force, whatever was killed meanwhile.

`STORM_SECONDS=600 FAULTS_SEED=7 pytest tests/faults/storm` makes a longer one, and repeats the choices
of a run; not their moments, which depend on the machine.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.matrix.faults import ENGINES, seed
from tests.faults.storm.checks import check
from tests.faults.storm.storm import Storm
from tests.support.service import Service

SECONDS = float(os.environ.get("STORM_SECONDS", "30"))
"""Of kills; until all is calm and checked it takes as long again."""


@pytest.mark.timeout(SECONDS + 600)
def test_what_was_acknowledged_is_in_force(fresh_service: Service, tmp_path: Path) -> None:
    fresh_service.start()
    storm = Storm(fresh_service, ENGINES, seed())
    storm.prepare()
    try:
        storm.rage(SECONDS)
        storm.settle()
        check(storm)
    finally:
        journal = tmp_path / "journal"
        journal.write_text("\n".join(storm.journal.lines))
        (tmp_path / "serve.log").write_bytes((fresh_service.home / "serve.log").read_bytes())
    print(f"seed {storm.seed}, journal {journal}: {dict(sorted(storm.journal.counts.items()))}")
    assert storm.journal.faults == [], f"see {journal}"
