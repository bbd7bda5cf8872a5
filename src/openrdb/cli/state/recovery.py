"""Recovery to a point in time as the operator sees it: turned on and off in the state; what can be
recovered is the service's to say."""

from __future__ import annotations

import json
from ssl import SSLCertVerificationError
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

from openrdb.cli.state.instances import find
from openrdb.cli.state.opened import opened_state
from openrdb.config import Settings
from openrdb.credentials import read_credentials
from openrdb.engines import stream_of
from openrdb.errors import HostError, OpenRDBError
from openrdb.operations.begin import record_for_operator
from openrdb.operations.recovery.switch import SwitchRecovery
from openrdb.state.statuses import instance as statuses

_TIMEOUT = 60.0


def switch(settings: Settings, wanted: str, *, on: bool) -> str:
    """Turn it on or off for an instance, and return its name; a running service does it at once.

    Raises:
        HostError: there is no such instance, or it cannot be so, or not now.
    """
    if on and settings.recovery.directory is None:
        raise HostError("nothing says where to keep it: set recovery.directory, and serve again")
    with opened_state(settings) as database, database.write() as session:
        instance = find(session, wanted)
        version = instance.primary.version
        if not stream_of(instance.engine).serves(version):
            raise HostError(
                f"{instance.engine} {version} cannot be recovered to a point in time here"
            )
        if on and not settings.recovery.takes(encrypted=instance.encryption):
            raise HostError(
                f"the instance {instance.name} is encrypted: set recovery.encrypted if the "
                "directory is on an encrypted device"
            )
        assert SwitchRecovery.request is not None  # noqa: S101
        try:
            statuses.require(instance, SwitchRecovery.request)
        except OpenRDBError:
            why = f"the instance {instance.name} is {instance.status}: try again when it is ready"
            raise HostError(why) from None
        instance.recovery = on
        session.flush()
        record_for_operator(session, SwitchRecovery(instance.id), "accepted")
        return instance.name


def shown(settings: Settings, wanted: str) -> dict[str, Any]:
    """Return what an instance can be recovered to; see `api.recovery.Recovery`."""
    return _ask(settings, wanted, "")


def restore(settings: Settings, wanted: str, name: str, to: str | None) -> dict[str, Any]:
    """Let a new instance be made with the data of a moment, and return it."""
    return _ask(settings, wanted, "/restore", {"name": name, "to": to})


def _ask(
    settings: Settings, wanted: str, path: str, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    with opened_state(settings) as database, database.read() as session:
        instance = find(session, wanted)
        place = f"regions/{instance.region}/instances/{instance.id}/recovery"
    return answer_of(read_credentials(settings.data_dir), f"{place}{path}", body)


def answer_of(
    credentials: dict[str, str], path: str, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return what the service answers.

    Raises:
        HostError: it refuses, does not answer, or its certificate cannot be verified.
    """
    url = f"{credentials['SCW_API_URL']}/openrdb/v1/{path}"
    headers = {"X-Auth-Token": credentials["SCW_SECRET_KEY"], "Content-Type": "application/json"}
    content = None if body is None else json.dumps(body).encode()
    request = Request(url, content, headers)  # noqa: S310
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=_TIMEOUT) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except HTTPError as error:
        raise HostError(_refusal(json.load(error))) from None
    except URLError as error:
        if isinstance(error.reason, SSLCertVerificationError):
            why = f"cannot verify the certificate of {credentials['SCW_API_URL']}: {error.reason}"
            raise HostError(f"{why}; let SSL_CERT_FILE name the file of its authority") from None
        raise HostError(f"the service does not answer: {error.reason}; `openrdb serve`") from None


def _refusal(answer: dict[str, Any]) -> str:
    details = answer.get("details") or [{}]
    what = details[0].get("argument_name"), details[0].get("help_message")
    if all(what):
        return f"{what[0]} {what[1]}"
    return str(answer.get("help_message") or answer.get("message") or "the service refuses")
