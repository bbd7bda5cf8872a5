"""What keeps an instance from a standby, and what does not."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from openrdb.errors import HostError, HostUnavailable, OpenRDBError, OutdatedSpec, TransientState
from openrdb.operations.instances import enable_high_availability
from openrdb.operations.instances.enable_high_availability import warnings_of


@pytest.fixture
def run_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[OpenRDBError], Any]:
    """An operation whose host cannot say what it warns of."""
    monkeypatch.setattr(enable_high_availability, "main_spec", lambda *_: None)

    def make(error: OpenRDBError) -> Any:
        def fail(_: object) -> list[str]:
            raise error

        instance = SimpleNamespace(id="i", primary="node")
        host = SimpleNamespace(pair_warnings=fail)
        return SimpleNamespace(instance=lambda: instance, host_of=lambda _: host, secrets=None)

    return make


@pytest.mark.parametrize(
    "error", [TransientState("instance", "i", "starting"), HostError("it takes too long")]
)
def test_a_primary_that_does_not_warn(
    run_with: Callable[[OpenRDBError], Any], error: OpenRDBError
) -> None:
    """As one that recovers from a crash: a working instance became one in `error`."""
    assert warnings_of(run_with(error)) == []


@pytest.mark.parametrize("error", [HostUnavailable("the agent is away"), OutdatedSpec("older")])
def test_a_host_that_is_away_is_asked_again(
    run_with: Callable[[OpenRDBError], Any], error: OpenRDBError
) -> None:
    with pytest.raises(type(error)):
        warnings_of(run_with(error))
