"""A primary that was promoted, or started again, and never takes writes: the other node becomes the
primary, as it has all that was acknowledged as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openrdb.host.records import PairRecord

if TYPE_CHECKING:
    from openrdb.host.pairs.keeper import PairKeeper

_TRIES = 2
"""Failures in a row, each of which may take a minute, after which the other node is tried; twice as
many each time, so that one of them comes to the end of what takes it long."""


def why_back(keeper: PairKeeper, pair: PairRecord) -> str | None:
    """Return why the other node is to be the primary; None: nothing says so."""
    if not pair.is_reversible:
        return None
    if _lost_power(keeper, pair):
        return "the host lost power, and what it had received may not be on its disk"
    ground = keeper.ground
    are_full = ground.is_full(pair.standby) and ground.is_full(pair.primary)
    if are_full or ground.failure(pair.standby) is not None:
        return None  # the one is as bad as the other
    if (why := ground.failure(pair.primary)) is not None:
        return f"it does not start: {why}"
    has_failed = keeper.failures >= _TRIES << keeper.taken_back
    return keeper.why_failed if has_failed and not pair.is_restart else None


def go_back(keeper: PairKeeper, pair: PairRecord, why: str, *, for_good: bool = False) -> None:
    """Make the other node the primary.

    Args:
        for_good: whether it is known that the other one never can be.
    """
    keeper.note(f"the primary cannot be opened: {why}")
    keeper.taken_back += 1
    # What a kill forgets: whether the power was lost.
    is_incomplete = _lost_power(keeper, pair)
    if not is_incomplete:
        keeper.kill(pair.primary)
    may_return = not (for_good or is_incomplete)
    keeper.make_primary(pair, pair.standby, unusable=True, may_go_back=may_return)


def is_possible(keeper: PairKeeper, pair: PairRecord) -> bool:
    """Return whether the other node can be the primary."""
    return pair.is_reversible and keeper.ground.failure(pair.standby) is None


def _lost_power(keeper: PairKeeper, pair: PairRecord) -> bool:
    """Return whether a dead node may lack what it had received: it was not synced."""
    if keeper.watch.lives(pair.primary) or not keeper.ground.lost_power(pair.primary):
        return False
    return not keeper.replication(pair.primary).keeps_received
