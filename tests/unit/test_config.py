"""The configuration: what is wrong or unknown in it is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from openrdb.config import Settings, load_settings
from openrdb.errors import HostError


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("OPENRDB_HOLDS", "1", "OPENRDB_HOLDS is unknown; did you mean OPENRDB_HOLD?"),
        ("openrdb_nonsense", "1", "openrdb_nonsense is unknown"),
        ("OPENRDB_NODE_PORTS", "soon", "node_ports"),
        ("OPENRDB_WARM_ENGINES", '["PostgreSQL17"]', "did you mean PostgreSQL-17?"),
        ("OPENRDB_ENGINE_ALIASES", '{"MySQL-8": "MySQL-99"}', "MySQL-99 is no engine version"),
        ("OPENRDB_ENGINE_ALIASES", '{"MySQL8": "MySQL-9"}', "did you mean MySQL-8?"),
        ("OPENRDB_INSTANCE_UIDS", "[100000, 200000]", "199999"),
    ],
)
def test_a_wrong_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(HostError) as refused:
        load_settings()
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"listen = ", "openrdb.toml is no TOML"),
        (b"listen = '\xff'", "openrdb.toml is no TOML"),
        (b"holds = 1", "holds"),
    ],
)
def test_a_wrong_file(text: bytes, words: str) -> None:
    Path("openrdb.toml").write_bytes(text)
    with pytest.raises(HostError, match=words) as refused:
        load_settings()
    assert "\n" not in str(refused.value)


def test_a_version_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENRDB_WARM_ENGINES", '["postgresql-17"]')
    assert load_settings().warm_engines == ["PostgreSQL-17"]


@pytest.mark.parametrize(
    ("listen", "public", "clients"),
    [
        ("127.0.0.1:1", "192.0.2.1", "127.0.0.1"),
        ("0.0.0.0:1", "127.0.0.1", "127.0.0.1"),
        ("0.0.0.0:1", "192.0.2.1", "192.0.2.1"),
        ("[::]:1", "127.0.0.1", "::1"),
        ("192.0.2.7:1", "127.0.0.1", "192.0.2.7"),
    ],
)
def test_where_clients_reach_it(listen: str, public: str, clients: str) -> None:
    assert Settings(listen=listen, public_address=public).client_host == clients
