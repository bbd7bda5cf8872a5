"""Load balancers: one interface, a driver that works everywhere and one for hosts with root."""

from openrdb.host.balancer.base import Balancer, Target
from openrdb.host.balancer.choice import Choice, balancer, choose

__all__ = ["Balancer", "Choice", "Target", "balancer", "choose"]
