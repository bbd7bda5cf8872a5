"""The one family of errors: `api.errors` maps each to its wire form, the CLI prints the message.

Statuses and fields are those that the official SDKs know. A refusal is always one of these, and
nothing has changed when it is raised.
"""

from __future__ import annotations

from typing import ClassVar, Literal

Reason = Literal["unknown", "required", "format", "constraint"]


class OpenRDBError(Exception):
    """Base of all refusals and failures that have a meaning for the caller."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "internal"

    @property
    def message(self) -> str:
        return str(self)

    @property
    def explanation(self) -> str:
        """What an operator reads of it: what was wrong with what."""
        return str(self)

    def fields(self) -> dict[str, object]:
        """Return the type's own fields in the wire form, in addition to `message` and `type`."""
        return {}


class InvalidArguments(OpenRDBError):
    """One or more arguments are wrong; each with the reason and a sentence of help."""

    status = 400
    type = "invalid_arguments"

    def __init__(self, *details: tuple[str, Reason, str]) -> None:
        super().__init__("invalid argument(s)")
        self.details = details

    def within(self, argument: str) -> InvalidArguments:
        """Return the same refusal for a part of an argument."""
        details = [(f"{argument}.{name}", reason, text) for name, reason, text in self.details]
        return InvalidArguments(*details)

    @property
    def explanation(self) -> str:
        return "; ".join(f"{name}: {help_message}" for name, _, help_message in self.details)

    def fields(self) -> dict[str, object]:
        return {
            "details": [
                {"argument_name": name, "reason": reason, "help_message": help_message}
                for name, reason, help_message in self.details
            ]
        }


class DeniedAuthentication(OpenRDBError):
    """No key, an unknown key, or one that has expired."""

    status = 401
    type = "denied_authentication"

    def __init__(self, reason: Literal["invalid_argument", "not_found", "expired"]) -> None:
        super().__init__("authentication is denied")
        self.reason = reason

    def fields(self) -> dict[str, object]:
        return {"method": "api_key", "reason": self.reason}


class PermissionsDenied(OpenRDBError):
    """The key is known, but may not do this."""

    status = 403
    type = "permissions_denied"

    def __init__(self, action: str, resource: str) -> None:
        super().__init__("insufficient permissions")
        self.action, self.resource = action, resource

    def fields(self) -> dict[str, object]:
        return {"details": [{"action": self.action, "resource": self.resource}]}


class QuotasExceeded(OpenRDBError):
    """A limit of the deployment is reached."""

    status = 403
    type = "quotas_exceeded"

    def __init__(self, resource: str, quota: int, current: int) -> None:
        super().__init__("quota exceeded")
        self.resource, self.quota, self.current = resource, quota, current

    def fields(self) -> dict[str, object]:
        detail = {"resource": self.resource, "quota": self.quota, "current": self.current}
        return {"details": [detail]}


class NotFound(OpenRDBError):
    """No such resource in the caller's sight."""

    status = 404
    type = "not_found"

    def __init__(self, resource: str, resource_id: str) -> None:
        super().__init__("resource is not found")
        self.resource, self.resource_id = resource, resource_id

    @property
    def explanation(self) -> str:
        return f"there is no {self.resource} {self.resource_id}"

    def fields(self) -> dict[str, object]:
        return {"resource": self.resource, "resource_id": self.resource_id}


class TransientState(OpenRDBError):
    """The resource's status does not allow this now."""

    status = 409
    type = "transient_state"

    def __init__(self, resource: str, resource_id: str, current_state: str) -> None:
        super().__init__("resource is in a transient state")
        self.resource, self.resource_id, self.current_state = resource, resource_id, current_state

    @property
    def explanation(self) -> str:
        return f"the {self.resource} {self.resource_id} is {self.current_state}"

    def fields(self) -> dict[str, object]:
        return {
            "resource": self.resource,
            "resource_id": self.resource_id,
            "current_state": self.current_state,
        }


class Busy(TransientState):
    """Too many calls wait for an instance's engine; the instance itself is as its status says."""

    def __init__(self, instance_id: str, current_state: str) -> None:
        super().__init__("instance", instance_id, current_state)

    @property
    def message(self) -> str:
        return "too many requests are waiting for the instance: try again later"


class PreconditionFailed(OpenRDBError):
    """Something must be true first."""

    status = 412
    type = "precondition_failed"

    def __init__(self, precondition: str, help_message: str) -> None:
        super().__init__("precondition failed")
        self.precondition, self.help_message = precondition, help_message

    @property
    def explanation(self) -> str:
        return self.help_message

    def fields(self) -> dict[str, object]:
        return {"precondition": self.precondition, "help_message": self.help_message}


class OutOfStock(OpenRDBError):
    """The deployment has no room for another of these."""

    status = 503
    type = "out_of_stock"

    def __init__(self, resource: str) -> None:
        super().__init__("resource is out of stock")
        self.resource = resource

    def fields(self) -> dict[str, object]:
        return {"resource": self.resource}


class HostError(OpenRDBError):
    """The machine cannot do what is asked: no disk, no binary, no permission, no free port.

    The CLI prints it and an operation records it; API clients get a refusal that they know.
    """


class DiskFull(HostError):
    """Something could not be written for want of space."""


class PoolMissing(HostError):
    """A pool of volumes is not there at the moment."""


class StoreUnavailable(HostError):
    """An object store does not do what is asked: it does not answer, refuses, or is damaged."""


class ObjectMissing(HostError):
    """An object store has no object of this key."""


class BackupFailed(HostError):
    """A backup cannot be made or restored, or is damaged: one sentence for its user."""


class Unopenable(HostError):
    """A server of a pair can never take writes with the data that it has."""


class StartFailed(HostError):
    """A server does not start, whatever is tried: its own words say why."""


class OutdatedSpec(HostError):
    """A host was asked for what has been replaced by something newer."""


class NodeRemoved(HostError):
    """A host does not have a node any more, or never had it."""


class HostUnavailable(HostError):
    """A host's agent does not answer."""


def is_refusal(error: BaseException) -> bool:
    """Return whether an error answers the request, and is not a failure on the way."""
    return isinstance(error, OpenRDBError) and error.status < 500
