"""The configuration: what is wrong or unknown in it is refused in one line."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from openrdb.config import REGIONS, Settings, load_settings, same_file_system
from openrdb.errors import HostError
from openrdb.system import files
from tests.support.mounts import btrfs, mount


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
        ("OPENRDB_S3_BUCKET", "My Bucket", "s3_bucket: must be a bucket's name"),
        ("OPENRDB_S3_BUCKET", "backups-{zone}", "may have no braces but {region}"),
        ("OPENRDB_S3_ENDPOINT", "https://s3.example.com", "is set, and no s3_bucket"),
        ("OPENRDB_OBJECT_DIRECTORY", "/mnt/{}", "may have no braces but {region}"),
        ("OPENRDB_POOLS", '{"Fast": {"directory": "/srv/fast"}}', "pools.Fast"),
        (
            "OPENRDB_POOLS",
            '{"fast": {"volume_types": ["lssd"]}}',
            "pools.fast must have a directory",
        ),
        (
            "OPENRDB_POOLS",
            '{"fast": {"directory": "/srv/fast", "volume_types": ["ssd"]}}',
            "ssd is no volume type; there are lssd, bssd, sbs_5k, sbs_15k",
        ),
        (
            "OPENRDB_POOLS",
            '{"one": {"directory": "/srv/a"}, "two": {"directory": "/srv/a/b"}}',
            "pools.two: /srv/a/b and /srv/a must be apart",
        ),
        ("OPENRDB_POOLS", '{"one": {"directory": "/"}}', "must be apart"),
        ("OPENRDB_POOLS", '{"default": {"directory": "/srv/a"}}', "pools.default is data_dir"),
        ("OPENRDB_DOWNLOAD_URL", "example.com", "must be a URL"),
        ("OPENRDB_DOWNLOAD_URL", "https://example.com/there", "without a path"),
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
        (b"holds = 1", "holds: is unknown; did you mean hold?"),
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


# -- where backups are ------------------------------------------------------------------------------


def test_objects_are_in_the_data_directory(tmp_path: Path) -> None:
    spec = Settings(data_dir=tmp_path).store_of("pl-waw")
    assert (spec.kind, spec.location) == ("directory", f"{tmp_path}/objects/pl-waw")


@pytest.mark.parametrize(
    ("given", "location"),
    [("/mnt/{region}/backups", "/mnt/nl-ams/backups"), ("/mnt/backups", "/mnt/backups/nl-ams")],
)
def test_a_directory_of_each_region(given: str, location: str) -> None:
    assert Settings(object_directory=given).store_of("nl-ams").location == location


def with_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, f"of-{name}")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "")
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    monkeypatch.setenv("AWS_PROFILE", "another")


def test_a_bucket_has_a_prefix_for_each_region(monkeypatch: pytest.MonkeyPatch) -> None:
    with_credentials(monkeypatch)
    monkeypatch.setenv("OPENRDB_S3_BUCKET", "backups")
    monkeypatch.setenv("OPENRDB_S3_ENDPOINT", "https://s3.example.com/")
    spec = load_settings().store_of("nl-ams")
    assert (spec.kind, spec.location, spec.prefix) == ("s3", "backups", "nl-ams")
    assert (spec.endpoint, spec.region) == ("https://s3.example.com", None)
    assert spec.environment == {
        "AWS_ACCESS_KEY_ID": "of-AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY": "of-AWS_SECRET_ACCESS_KEY",
    }
    assert "of-AWS" not in repr(spec) + repr(load_settings())


def test_a_bucket_of_each_region(monkeypatch: pytest.MonkeyPatch) -> None:
    with_credentials(monkeypatch)
    Path("openrdb.toml").write_text(
        's3_bucket = "backups-{region}"\n'
        's3_endpoint = "https://s3.{region}.scw.cloud"\n'
        's3_region = "{region}"\n'
    )
    spec = load_settings().store_of("nl-ams")
    assert (spec.location, spec.prefix) == ("backups-nl-ams", "")
    assert (spec.endpoint, spec.region) == ("https://s3.nl-ams.scw.cloud", "nl-ams")


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_a_bucket_needs_credentials(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with_credentials(monkeypatch)
    monkeypatch.delenv(name)
    with pytest.raises(HostError, match=f"s3_bucket is set, and {name} is not in the environment"):
        Settings(s3_bucket="backups").store_of("fr-par")


@pytest.mark.root
def test_one_file_system_for_several_things(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_credentials(monkeypatch)
    data = tmp_path / "data"
    assert same_file_system(Settings(data_dir=data))
    for region in REGIONS:
        disk = tmp_path / region
        disk.mkdir()
        mount("-t", "tmpfs", "none", str(disk))
    try:
        apart = f"{tmp_path}/{{region}}/not/made/yet"
        assert not same_file_system(Settings(data_dir=data, object_directory=apart))
        assert same_file_system(Settings(data_dir=data, object_directory=str(disk)))
        assert not same_file_system(Settings(data_dir=data, s3_bucket="backups"))
    finally:
        for region in REGIONS:
            subprocess.run(["umount", str(tmp_path / region)], check=True)


@pytest.mark.root
def test_subvolumes_are_of_one_file_system(tmp_path: Path) -> None:
    disk = btrfs(tmp_path)
    try:
        subprocess.run(
            ["btrfs", "subvolume", "create", str(disk / "other")], check=True, capture_output=True
        )
        assert disk.stat().st_dev != (disk / "other").stat().st_dev
        assert files.file_system(disk) == files.file_system(disk / "other")
        assert files.file_system(disk) != files.file_system(tmp_path)
    finally:
        subprocess.run(["umount", str(disk.parent)], check=True)


def test_pools(tmp_path: Path) -> None:
    Path("openrdb.toml").write_text("""
volumes_encrypted = true
[pools.block]
directory = "/srv/block"
volume_types = ["bssd", "sbs_5k"]
[pools.safe]
directory = "/srv/safe"
volume_types = ["sbs_5k", "sbs_15k"]
encrypted = true
[pools.other]
directory = "/srv/other"
volume_types = ["sbs_5k"]
""")
    settings = load_settings(data_dir=tmp_path / "data")
    found = {
        type_: [settings.pool_of(type_, encrypted=encrypted) for encrypted in (False, True)]
        for type_ in ("lssd", "bssd", "sbs_5k", "sbs_15k")
    }
    assert found == {
        "lssd": ["default", "default"],
        "bssd": ["block", None],
        "sbs_5k": ["block", "safe"],
        "sbs_15k": ["safe", "safe"],
    }
    pools = {"safe": {"directory": "/srv/safe", "volume_types": ["lssd"], "encrypted": True}}
    pools["default"] = {"volume_types": ["lssd"]}
    settings = load_settings(data_dir=tmp_path / "data", pools=pools, volumes_encrypted=False)
    assert settings.pool_of("lssd", encrypted=False) == "default"
    assert settings.pool_of("lssd", encrypted=True) == "safe"
