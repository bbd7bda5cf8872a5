"""What is said of collations and time zones that changed under a volume."""

from __future__ import annotations

from pathlib import Path

from openrdb.engines import versions

RECORDED = {"collations of libc": "2.36", "collations of icu": "153.14", "time zones": "2025a"}


def test_nothing_has_changed() -> None:
    assert versions.changes(RECORDED, RECORDED) is None
    assert versions.changes({}, RECORDED) is None, "it was not recorded before"


def test_what_changed_and_what_to_do() -> None:
    said = versions.changes(RECORDED, {**RECORDED, "collations of libc": "2.41"})
    assert said is not None
    assert "collations of libc from 2.36 to 2.41" in said
    assert "REINDEX" in said
    assert "local times" not in said
    said = versions.changes(RECORDED, {**RECORDED, "time zones": "2026b"})
    assert said is not None
    assert "time zones from 2025a to 2026b" in said
    assert "REINDEX" not in said
    assert "local times" in said


def test_a_provider_that_is_gone() -> None:
    said = versions.changes(RECORDED, {"time zones": "2025a", "collations of libc": "2.36"})
    assert said is not None
    assert "collations of icu from 153.14 to none" in said


def test_the_first_time_zones_count(tmp_path: Path) -> None:
    (tmp_path / "tzdata.zi").write_text("# version 1999z\nR d 1916\n")
    assert versions.of_time_zones([tmp_path / "none", tmp_path]) == "1999z"
