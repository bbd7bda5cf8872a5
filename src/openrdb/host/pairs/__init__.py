"""High availability on one host: two nodes of an instance, one of which takes writes."""

from openrdb.host.pairs.keeper import PairKeeper

__all__ = ["PairKeeper"]
