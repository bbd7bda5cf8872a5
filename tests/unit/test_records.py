"""What a host has written down, as the control plane asks for it after an older state was restored."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from openrdb.errors import HostError
from openrdb.host.records import NodeRecord, PairRecord, Records, RouteRecord
from openrdb.spec import Backend, KnownInstance, NodeSpec, Route
from openrdb.system.layout import Layout
from tests.support.mounts import mount


def spec(instance_id: UUID, generation: int = 1, uid: int | None = None) -> NodeSpec:
    return NodeSpec(
        instance_id=instance_id,
        node_id=uuid4(),
        engine="MySQL-9",
        address="127.0.0.1",
        port=12000,
        uid=uid,
        memory=1,
        generation=generation,
    )


def route(node: NodeSpec, generation: int, rule: UUID | None = None) -> Route:
    return Route(
        endpoint_id=uuid4(),
        instance_id=node.instance_id,
        address="127.0.0.1",
        port=20000,
        backends=(Backend(node.node_id, node.address, node.port),),
        connections=1,
        uid=None,
        generation=generation,
        rule=rule or "primary",
    )


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(Layout(tmp_path))


def save(records: Records, layout: Layout, node: NodeSpec) -> None:
    layout.node(node.instance_id, node.node_id).root.mkdir(parents=True)
    records.save_node(NodeRecord(node, "mysql-9.7.4"))


def test_the_latest_generation_is_that_of_nodes_and_endpoints(
    records: Records, tmp_path: Path
) -> None:
    layout, node = Layout(tmp_path), spec(uuid4(), 3)
    save(records, layout, node)
    known = KnownInstance(node.instance_id, "MySQL-9", 3, (node.node_id,))
    assert records.known_instances() == [known]
    records.save_route(RouteRecord(route(node, 5)))
    assert [one.generation for one in records.known_instances()] == [5]
    records.note_removal(route(node, 8, node.node_id))
    assert [one.generation for one in records.known_instances()] == [8]
    assert Records(layout).known_instances() == records.known_instances()


def test_what_cannot_be_read_is_there_as_well(records: Records, tmp_path: Path) -> None:
    """A damaged record, and an earlier version's volume without one; not what is half deleted."""
    layout, instance_id = Layout(tmp_path), uuid4()
    damaged, unrecorded, nothing = (layout.node(instance_id, uuid4()) for _ in range(3))
    for paths in (damaged, unrecorded, nothing):
        paths.root.mkdir(parents=True)
    damaged.record.write_text("{")
    unrecorded.data.mkdir()
    (tmp_path / "instances" / "lost+found" / "nodes" / "x" / "data").mkdir(parents=True)
    (found,) = Records(layout).known_instances()
    assert (found.instance_id, found.engine, found.generation) == (instance_id, "", 0)
    assert {str(one) for one in found.nodes} == {damaged.root.name, unrecorded.root.name}


def test_an_account_is_one_instance_s(records: Records, tmp_path: Path) -> None:
    known = spec(uuid4(), uid=200_001)
    save(records, Layout(tmp_path), known)
    records.require_own_account(spec(known.instance_id, uid=200_001))
    records.require_own_account(spec(uuid4(), uid=200_002))
    records.require_own_account(spec(uuid4()))
    with pytest.raises(HostError, match=str(known.instance_id)):
        records.require_own_account(spec(uuid4(), uid=200_001))


@pytest.mark.root
def test_a_full_disk_keeps_no_pair_from_changing(tmp_path: Path) -> None:
    """The volumes may lie elsewhere, and have room."""
    place = tmp_path / "small"
    place.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place))
    try:
        layout, instance_id = Layout(place), uuid4()
        layout.instance(instance_id).mkdir(parents=True)
        records, members = Records(layout), (uuid4(), uuid4())
        pair = PairRecord(instance_id, members, members[0])
        records.save_pair(pair)
        layout.reserve.write_bytes(bytes(64 * 1024))
        with suppress(OSError), (place / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))
        for number in range(2, 10):
            records.save_pair(replace(pair, epoch=number))
        assert Records(layout).pairs[instance_id].epoch == 9
        assert not layout.reserve.exists()
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
