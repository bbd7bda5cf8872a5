"""The soak calls each operation of the API, though this takes half an hour to see."""

from __future__ import annotations

import re

from tests.soak.calls import CALLS
from tests.support.surface import sdk

ELSEWHERE = {
    *("create_instance", "delete_instance", "list_instances"),
    *("list_database_backups", "list_snapshots"),
}
"""What callers ask for to know and to replace what they have."""


def test_each_operation_is_called() -> None:
    called = set()
    for call in CALLS:
        if not call.path.startswith("//"):
            path = f"/rdb/v1/regions/fr-par{re.sub('{.*?}', 'x', call.path)}"
            operation = sdk.operation_of(call.method, path)
            assert operation is not None, call
            called.add(operation.name)
    assert called | ELSEWHERE == set(sdk.operations())
    assert not called & ELSEWHERE
