"""What an operator is told of a host."""

from __future__ import annotations

from pathlib import Path

import pytest

from openrdb.cli import doctor
from openrdb.config import Settings


@pytest.mark.parametrize(
    ("address", "verdict"), [("127.0.0.1", "ok"), ("192.0.2.77", "warning"), ("::1", "ok")]
)
def test_who_reaches_endpoints(address: str, verdict: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", public_address=address)
    (found,) = (one for one in doctor.examine(settings) if one.subject == "endpoints")
    assert found.verdict == verdict
    assert address in found.text
