"""What a deployment offers, by what is installed and what the operator allows."""

from __future__ import annotations

from openrdb.catalog.offers import Offers

INSTALLED = {"PostgreSQL-13": "13.23", "PostgreSQL-15": "15.19", "PostgreSQL-17": "17.11"}


def test_only_what_is_installed_can_be_created() -> None:
    offers = Offers(INSTALLED, allow_disabled=False)
    found = offers.find("PostgreSQL-17")
    assert found is not None
    assert found.minor == "17.11"
    assert offers.find("PostgreSQL-16") is None
    assert offers.find("Nonsense-1") is None


def test_what_is_past_its_end_of_life_needs_the_operators_word() -> None:
    assert Offers(INSTALLED, allow_disabled=False).find("PostgreSQL-13") is None
    assert Offers(INSTALLED, allow_disabled=True).find("PostgreSQL-13") is not None
    # Allowed, but without binaries it cannot run.
    assert Offers(INSTALLED, allow_disabled=True).find("PostgreSQL-12") is None


def found(offers: Offers, name: str, minor: str, *, majors: bool = False) -> list[tuple[str, str]]:
    return [(one.version.name, one.minor) for one in offers.upgrades(name, minor, majors=majors)]


def test_what_a_version_can_be_upgraded_to() -> None:
    """Newer binaries of the same major version, in the order of numbers."""
    offers = Offers(INSTALLED | {"MySQL-8": "9.7.4"}, allow_disabled=False)
    assert found(offers, "PostgreSQL-17", "17.9") == [("PostgreSQL-17", "17.11")]
    for name, minor in [
        ("PostgreSQL-17", "17.11"),
        ("PostgreSQL-17", "17.12"),
        ("PostgreSQL-17", "unknown"),
        ("PostgreSQL-16", "16.1"),
        ("MySQL-8", "8.0.31"),  # a name that other binaries serve
    ]:
        assert found(offers, name, minor) == []


def test_major_versions_are_those_that_can_be_created() -> None:
    offers = Offers(INSTALLED, allow_disabled=True)
    newer = [("PostgreSQL-15", "15.19"), ("PostgreSQL-17", "17.11")]
    assert found(offers, "PostgreSQL-13", "13.23", majors=True) == newer
    assert found(offers, "PostgreSQL-13", "13.22", majors=True) == [
        ("PostgreSQL-13", "13.23"),
        *newer,
    ]
    assert found(offers, "PostgreSQL-17", "17.11", majors=True) == []


def test_an_upgrade_has_the_same_id_everywhere() -> None:
    ids = {
        Offers({"PostgreSQL-17": minor}, False).upgrades("PostgreSQL-17", "17.1", majors=True)[0].id
        for minor in ("17.11", "17.12")
    }
    assert len(ids) == 1


def test_the_list_tells_the_truth() -> None:
    shown = {version.name: version.disabled for version in Offers(INSTALLED, False).listed()}
    assert shown == {
        "PostgreSQL-11": True,
        "PostgreSQL-12": True,
        "PostgreSQL-13": True,
        "PostgreSQL-15": False,
        "PostgreSQL-17": False,
    }
