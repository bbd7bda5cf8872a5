"""An instance's settings, checked against those of its engine's version (the document, "Settings")."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from uuid import UUID

from fastapi import APIRouter

from openrdb.api import wire
from openrdb.api.auth import CurrentPrincipal
from openrdb.api.common import PREFIX, Backend, CurrentBackend
from openrdb.catalog.engines import as_run, engine_version
from openrdb.catalog.setting_values import problem
from openrdb.config import Region
from openrdb.errors import InvalidArguments
from openrdb.operations.desired import all_settings, main_spec
from openrdb.state import instances, operations, statuses
from openrdb.state.models import Instance
from openrdb.state.scope import Principal

router = APIRouter(prefix=PREFIX + "/instances/{instance_id}/settings")

Values = dict[str, str]


@router.post("")
def add_instance_settings(
    region: Region,
    instance_id: UUID,
    body: wire.SetSettings,
    backend: CurrentBackend,
    principal: CurrentPrincipal,
) -> wire.InstanceSettings:
    """Answers all settings."""
    after = _change(
        backend, principal, region, instance_id, lambda own: own | _checked(own, body.settings)
    )
    return _show({name: after.settings[name] for name in sorted(after.settings)})


@router.put("")
def set_instance_settings(
    region: Region,
    instance_id: UUID,
    body: wire.SetSettings,
    backend: CurrentBackend,
    principal: CurrentPrincipal,
) -> wire.InstanceSettings:
    """Replaces all; answers what was just set, in its order."""
    _change(backend, principal, region, instance_id, lambda own: _checked(own, body.settings))
    return _show({setting.name: setting.value for setting in body.settings})


@router.delete("")
def delete_instance_settings(
    region: Region,
    instance_id: UUID,
    body: wire.DeleteSettings,
    backend: CurrentBackend,
    principal: CurrentPrincipal,
) -> wire.InstanceSettings:
    """Back to their defaults; answers those that were deleted."""
    deleted: Values = {}

    def without(own: _Own) -> Values:
        known = {setting.name for setting in own.available}
        for at, name in enumerate(body.setting_names):
            if name not in known:
                help_message = f"{name} is not a setting of {own.version}"
                raise InvalidArguments((f"setting_names.{at}", "constraint", help_message))
        deleted.update({name: own[name] for name in sorted(own) if name in body.setting_names})
        return {name: value for name, value in own.items() if name not in deleted}

    _change(backend, principal, region, instance_id, without)
    return _show(deleted)


class _Own(Values):
    """What an instance has set, and what its version has."""

    def __init__(self, instance: Instance) -> None:
        super().__init__(instance.settings)
        found = engine_version(instance.engine)
        self.version = instance.engine
        as_is = as_run(found, instance.primary.version) if found else None
        self.available = as_is.available_settings if as_is else ()


def _checked(own: _Own, settings: Sequence[wire.SettingRequest]) -> Values:
    by_name = {setting.name: setting for setting in own.available}
    checked: Values = {}
    for at, asked in enumerate(settings):
        known = by_name.get(asked.name)
        if known is None:
            help_message = f"{asked.name} is not a setting of {own.version}"
            raise InvalidArguments((f"settings.{at}.name", "constraint", help_message))
        if (why := problem(known, asked.value)) is not None:
            raise InvalidArguments((f"settings.{at}.value", "constraint", f"{asked.name} {why}"))
        if asked.name in checked:
            help_message = f"{asked.name} is given twice"
            raise InvalidArguments((f"settings.{at}.name", "constraint", help_message))
        checked[asked.name] = asked.value
    return checked


def _change(
    backend: Backend,
    principal: Principal,
    region: Region,
    instance_id: UUID,
    change: Callable[[_Own], Values],
) -> Instance:
    with backend.database.read() as session:
        instance = instances.get(session, region, instance_id, principal)
        statuses.require(instance, "set_settings")
    _check_by_engine(backend, instance, change(_Own(instance)))
    with backend.database.write() as session:
        instance = instances.get(session, region, instance_id, principal)
        statuses.require(instance, "set_settings")
        before = dict(instance.settings)
        instance.settings = change(_Own(instance))
        statuses.move(instance, "configuring")
        operation = operations.record(session, instance, "apply_settings", {"before": before})
    backend.start(operation.id)
    return instance


def _check_by_engine(backend: Backend, instance: Instance, own: Values) -> None:
    """Raise InvalidArguments for what the engine's own reading of its files refuses."""
    spec = main_spec(instance, backend.secrets)
    spec = dataclasses.replace(spec, settings=all_settings(instance, own))
    if (why := backend.host.check_configuration(spec)) is not None:
        raise InvalidArguments(("settings", "constraint", why))


def _show(settings: Values) -> wire.InstanceSettings:
    shown = [wire.InstanceSetting(name=name, value=value) for name, value in settings.items()]
    return wire.InstanceSettings(settings=shown)
