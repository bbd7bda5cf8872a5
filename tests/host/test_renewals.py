"""Databases that could not be renewed for a node's binaries are tried again."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from openrdb.host.data_versions import renewal
from tests.support.agent import Agent
from tests.support.place import new_place
from tests.support.service import installed, port_of_server, wait_until


def test_what_failed_once_is_tried_again(cache: Path, worker_id: str) -> None:
    place = new_place()
    place.mkdir(mode=0o755)
    with Agent(place, cache) as agent:
        engine = installed(cache, "PostgreSQL-17")
        node = agent.node(engine, port_of_server(worker_id, 90), 2 * 2**30)
        records = agent.host._records
        record = records.nodes[node.spec.node_id]
        wanted = renewal(record.bundle)
        wait_until(lambda: records.nodes[node.spec.node_id].renewed_for == wanted)
        records.save_node(replace(records.nodes[node.spec.node_id], renewed_for=""))
        agent.host._renew_servers()
        wait_until(lambda: records.nodes[node.spec.node_id].renewed_for == wanted)
    shutil.rmtree(place)
