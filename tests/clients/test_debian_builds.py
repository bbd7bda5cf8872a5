"""Instances of Debian's build by the official SDK: extensions come through all that copies data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg import errors
from scaleway.rdb.v1 import (
    Instance,
    InstanceSetting,
    ReadReplica,
    UpgradeInstanceRequestMajorUpgradeWorkflow,
)

from openrdb.host.bundles.cache import Bundles
from tests.support.high_availability import kill_primary, remove
from tests.support.replicas import DIRECT, following, login_of
from tests.support.replicas import made as made_replica
from tests.support.service import (
    Service,
    accessible_cache,
    cache_with,
    ports_of_worker,
    ready,
    wait_until,
)
from tests.support.writers import Writers

ENGINE, NEWER = "PostgreSQL-17", "PostgreSQL-18"
BLOCK: dict[str, Any] = {"volume_type": "sbs_5k", "volume_size": 10 * 10**9}
MADE = """
    CREATE SCHEMA extensions;
    CREATE EXTENSION postgis SCHEMA extensions;
    CREATE EXTENSION postgis_topology;
    CREATE EXTENSION pgrouting SCHEMA extensions;
    CREATE EXTENSION vector SCHEMA extensions;
    CREATE EXTENSION h3 SCHEMA extensions;
    CREATE EXTENSION timescaledb SCHEMA extensions;
    CREATE SCHEMA partman;
    CREATE EXTENSION pg_partman SCHEMA partman;
    SET search_path = public, extensions, topology;
    CREATE TABLE places (
        id int PRIMARY KEY, place geography(Point), shape geometry(Point, 4326), cell h3index,
        near vector(3), name text COLLATE "fr-CA-x-icu"
    );
    INSERT INTO places VALUES
        (1, 'POINT(2.35 48.85)', 'SRID=4326;POINT(2.35 48.85)', '89283470c27ffff', '[1,0,0]', 'côte'),
        (2, 'POINT(4.85 45.76)', 'SRID=4326;POINT(4.85 45.76)', '89283470c2fffff', '[0,1,0]', 'coté');
    CREATE INDEX ON places USING gist (place);
    CREATE INDEX ON places USING hnsw (near vector_l2_ops);
    CREATE INDEX by_name ON places (name);
    INSERT INTO spatial_ref_sys (srid, auth_name, auth_srid, srtext, proj4text)
        VALUES (990001, 'own', 1, 'x', 'x');
    SELECT topology.CreateTopology('city', 4326);
    CREATE TABLE measured (at timestamptz NOT NULL, value float);
    CREATE SCHEMA chunks;
    SELECT create_hypertable('measured', 'at', chunk_time_interval => interval '1 day',
        associated_schema_name => 'chunks');
    INSERT INTO measured SELECT '2026-01-01'::timestamptz + n * interval '1 hour', n
        FROM generate_series(1, 100) AS n;
    CREATE TABLE days (day date NOT NULL) PARTITION BY RANGE (day);
    SELECT partman.create_parent('public.days', 'day', '1 day');
    CREATE FUNCTION extensions.timescaledb_post_restore(a int DEFAULT 1) RETURNS bool
        LANGUAGE sql AS 'SELECT true';
"""
ASKED = """
    SELECT
        (SELECT ST_Distance(a.place, b.place)::int FROM places a, places b WHERE (a.id, b.id) = (1, 2)),
        (SELECT id FROM places ORDER BY near <-> '[0,1,1]' LIMIT 1),
        (SELECT string_agg(name, ' ' ORDER BY name) FROM places),
        (SELECT count(*) FROM spatial_ref_sys WHERE srid = 990001),
        (SELECT name FROM topology.topology),
        (SELECT sum(sum) FROM (
            SELECT time_bucket('1 day', at), sum(value) FROM measured GROUP BY 1
        ) AS by_day),
        (SELECT count(*) FROM show_chunks('measured')),
        (SELECT count(*) > 3 FROM pg_inherits WHERE inhparent = 'days'::regclass)
"""
VERSIONS = """
    SELECT (SELECT extversion FROM pg_extension WHERE extname = 'postgis'),
        (SELECT pg_collation_actual_version('"fr-CA-x-icu"'::regcollation))
"""
OUTDATED = "SELECT count(*) FROM pg_collation WHERE collversion <> pg_collation_actual_version(oid)"
FOUND = {
    "place": "SELECT id FROM places ORDER BY place <-> 'POINT(4.8 45.7)' LIMIT 1",
    "near": "SELECT id FROM places ORDER BY near <-> '[0,1,1]' LIMIT 1",
}
WANTED = (392067, 2, "côte coté", 1, "city", 5050.0, 5, True)


@pytest.fixture(scope="module")
def debian(debian_cache: Path, worker_id: str) -> Iterator[Service]:
    with Service(debian_cache, ports_of_worker(worker_id, 1)) as running:
        running.environment["OPENRDB_TRASH"] = "0"
        running.start()
        yield running


@pytest.fixture(scope="module")
def instance(debian: Service) -> Iterator[Instance]:
    made = debian.create(ENGINE, name="modules", **BLOCK)
    with debian.connection(made) as session:
        session.execute(MADE)
    yield made
    remove(debian, made)


def works(service: Service, instance: Instance, database: str = "rdb") -> None:
    """All that was made with extensions is there, and can be changed."""
    with service.connection(instance, database=database) as session:
        session.execute("SET search_path = public, extensions, topology")
        assert session.execute(ASKED).fetchone() == WANTED
        session.execute("BEGIN")
        session.execute("SET LOCAL enable_seqscan = off")
        assert "Index Scan" in str(session.execute(f"EXPLAIN {FOUND['near']}").fetchall())
        assert session.execute(FOUND["near"]).fetchone() == (2,)
        session.execute("INSERT INTO measured VALUES (now(), 1)")
        session.execute("INSERT INTO places SELECT 3, place FROM places WHERE id = 1")
        session.execute("SELECT topology.CreateTopology('town', 4326)")
        session.execute("ROLLBACK")


def test_backups(debian: Service, instance: Instance) -> None:
    works(debian, instance)
    restores(debian, instance)
    with debian.connection(instance, database="again") as session:
        granted = "SELECT FROM pg_init_privs WHERE initprivs::text ~ '_rdb_restore'"
        assert session.execute(granted).fetchall() == []


def restores(service: Service, instance: Instance) -> None:
    """A backup has all of it."""
    sdk = service.sdk()
    backup = sdk.create_database_backup(instance_id=instance.id, database_name="rdb", name="all")
    wait_until(lambda: sdk.get_database_backup(database_backup_id=backup.id).status == "ready")
    ready(sdk, instance.id)
    sdk.restore_database_backup(
        database_backup_id=backup.id, instance_id=instance.id, database_name="again"
    )
    wait_until(lambda: sdk.get_database_backup(database_backup_id=backup.id).status == "ready")
    ready(sdk, instance.id)
    works(service, instance, "again")
    sdk.delete_database_backup(database_backup_id=backup.id)


def test_copies(debian: Service, instance: Instance) -> None:
    sdk = debian.sdk()
    snapshot = sdk.create_snapshot(instance_id=instance.id, name="copy")
    wait_until(lambda: sdk.get_snapshot(snapshot_id=snapshot.id).status == "ready")
    ready(sdk, instance.id)
    restored = sdk.create_instance_from_snapshot(snapshot_id=snapshot.id, instance_name="restored")
    clone = sdk.clone_instance(instance_id=instance.id, name="clone")
    for copy in (ready(sdk, restored.id), ready(sdk, clone.id)):
        works(debian, copy)
    sdk.delete_snapshot(snapshot_id=snapshot.id)
    for one in (restored, clone):
        remove(debian, one)


def test_failover(debian: Service, instance: Instance) -> None:
    sdk = debian.sdk()
    replica = made_replica(debian, instance, endpoint_spec=[DIRECT])
    ready(sdk, instance.id)
    shows(debian, instance, replica)
    sdk.upgrade_instance(instance_id=instance.id, enable_ha=True)
    paired = ready(sdk, instance.id)
    with Writers(debian.login(paired)) as writers:
        writers.wait_for(50)
        kill_primary(debian, paired)
        writers.wait_for(50)
    assert writers.lost() == []
    works(debian, ready(sdk, instance.id))
    following(debian, replica.id)
    shows(debian, instance, replica)


def shows(service: Service, instance: Instance, replica: ReadReplica) -> None:
    with login_of(service, instance, replica).connect() as session:
        session.execute("SET search_path = public, extensions, topology")
        assert session.execute(ASKED).fetchone() == WANTED


def test_a_major_upgrade(debian: Service) -> None:
    """Indexes are in the order of the newer version's collations, and extensions of its versions."""
    sdk, instance = debian.sdk(), debian.create(ENGINE, name="upgraded", **BLOCK)
    with debian.connection(instance) as session:
        session.execute(MADE)
        before = session.execute(VERSIONS).fetchone()
    upgradable = ready(sdk, instance.id).upgradable_version
    (newer,) = (one.id for one in upgradable if one.name == NEWER)
    workflow = UpgradeInstanceRequestMajorUpgradeWorkflow(newer, with_endpoints=True)
    upgraded = sdk.upgrade_instance(instance_id=instance.id, major_upgrade_workflow=workflow)
    with debian.connection(ready(sdk, upgraded.id)) as session:
        session.execute("SET search_path = public, extensions, topology")
        assert session.execute(ASKED).fetchone() == WANTED
        after = session.execute(VERSIONS).fetchone()
        assert before is not None and after is not None
        assert all(now != then for now, then in zip(after, before, strict=True))
        wait_until(lambda: session.execute(OUTDATED).fetchone() == (0,))
        session.execute("SET enable_seqscan = off")
        query = "SELECT id FROM places WHERE name = 'coté'"
        assert session.execute(query).fetchall() == [(2,)]
        for found in FOUND.values():
            assert "Index Scan" in str(session.execute(f"EXPLAIN {found}").fetchall())
            assert session.execute(found).fetchone() == (2,)
        session.execute("INSERT INTO places SELECT 3, place FROM places WHERE id = 1")
        session.execute("SELECT topology.CreateTopology('town', 4326)")
        session.execute("INSERT INTO measured VALUES (now(), 1)")
        session.execute("SELECT drop_chunks('measured', newer_than => '2026-02-01'::timestamptz)")
        session.execute("DELETE FROM places WHERE id = 3")
        session.execute("SELECT topology.DropTopology('town')")
    restores(debian, sdk.get_instance(instance_id=upgraded.id))
    log = (debian.data_dir / "run" / "agent.log").read_text(errors="replace")
    assert "rebuilding public.by_name, whose collation has changed" in log
    for one in (upgraded, instance):
        remove(debian, sdk.get_instance(instance_id=one.id))


def test_jobs_come_along(debian: Service) -> None:
    """A clone runs them as well, and the next primary goes on with them."""
    sdk, instance = debian.sdk(), debian.create(ENGINE, name="jobs", **BLOCK)
    zone = [InstanceSetting("cron.timezone", "GMT")]
    sdk.set_instance_settings(instance_id=instance.id, settings=zone)
    ready(sdk, instance.id)
    with debian.connection(instance) as session:
        session.execute("CREATE EXTENSION pg_cron")
        session.execute("CREATE TABLE runs (at timestamptz DEFAULT clock_timestamp())")
        session.execute("SELECT cron.schedule('1 seconds', 'INSERT INTO runs DEFAULT VALUES')")
    runs(debian, instance)
    clone = sdk.clone_instance(instance_id=instance.id, name="clone of jobs")
    runs(debian, ready(sdk, clone.id))
    remove(debian, sdk.get_instance(instance_id=clone.id))
    ready(sdk, instance.id)
    sdk.upgrade_instance(instance_id=instance.id, enable_ha=True)
    paired = ready(sdk, instance.id)
    runs(debian, paired)
    kill_primary(debian, paired)
    runs(debian, paired)
    remove(debian, ready(sdk, instance.id))


def runs(service: Service, instance: Instance) -> None:
    """Wait until jobs have run twice from now on."""
    with service.connection(instance) as session:
        count = "SELECT count(*) FROM runs"
        before = session.execute(count).fetchone()[0]
        wait_until(lambda: session.execute(count).fetchone()[0] >= before + 2)


def test_no_tenant_reads_the_servers_files(debian: Service, instance: Instance) -> None:
    with debian.connection(instance) as session:
        with pytest.raises(errors.InsufficientPrivilege):
            session.execute("SELECT pg_read_file('/etc/passwd')")
        for name in ("dblink", "postgres_fdw", "file_fdw"):
            with pytest.raises(errors.InsufficientPrivilege):
                session.execute(f"CREATE EXTENSION {name}")


def test_an_instance_moves_to_it(
    debian_cache: Path, fresh_service: Service, short_tmp: Path
) -> None:
    """As a maintenance: with the data that it has, which gets the new build's collations."""
    own = short_tmp / "cache"
    own.mkdir(mode=0o777)
    own.chmod(0o777)  # which is written to by whoever serves
    wheels = Bundles(accessible_cache(cache_with(ENGINE, "wheel")))
    wheel = wheels.of(*wheels.builds(ENGINE, "wheel"))
    assert wheel is not None
    for bundle in (wheel, wheels.haproxy()):
        (own / bundle.name).symlink_to(bundle.path)
    fresh_service.environment["OPENRDB_CACHE"] = str(own)
    fresh_service.start()
    sdk, instance = fresh_service.sdk(), fresh_service.create(ENGINE, name="moved", **BLOCK)
    icu = "SELECT count(*) FROM pg_collation WHERE collname = 'fr-x-icu'"
    with fresh_service.connection(instance) as session:
        session.execute(
            "CREATE TABLE kept AS SELECT n, n::text AS t FROM generate_series(1, 1000) n"
        )
        session.execute("CREATE INDEX ON kept (t)")
        assert session.execute(icu).fetchone() == (0,)
        with pytest.raises(errors.FeatureNotSupported):
            session.execute("CREATE EXTENSION postgis")
    newer = Bundles(debian_cache).find(ENGINE)
    (own / newer.name).symlink_to(newer.path)
    wait_until(lambda: sdk.get_instance(instance_id=instance.id).maintenances)
    sdk.apply_instance_maintenance(instance_id=instance.id)
    ready(sdk, instance.id)
    assert sdk.get_instance(instance_id=instance.id).maintenances[-1].status == "done"
    with fresh_service.connection(instance) as session:
        assert session.execute("SHOW server_version").fetchone()[0].startswith(newer.version)
        assert session.execute("SELECT n FROM kept WHERE t = '777'").fetchone() == (777,)
        wait_until(lambda: session.execute(icu).fetchone() == (1,))
        known = "SELECT count(*) FROM pg_collation WHERE collname = 'fr_FR'"
        wait_until(lambda: session.execute(known).fetchone() == (1,))
        session.execute(MADE)
    works(fresh_service, instance)
