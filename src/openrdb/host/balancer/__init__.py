"""Load balancers: one interface, a driver that works everywhere and one for hosts with root."""

from openrdb.host.balancer.base import Balancer, Target
from openrdb.host.balancer.haproxy import HAProxy, is_free

__all__ = ["Balancer", "HAProxy", "Target", "is_free"]
