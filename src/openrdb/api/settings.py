"""An instance's settings, checked against the catalogue's for its engine version."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from uuid import UUID

from fastapi import APIRouter
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from openrdb.api import wire
from openrdb.api.auth import CurrentCaller
from openrdb.api.common import PREFIX, Backend, CurrentBackend, the_instance
from openrdb.api.engine_calls import Kind
from openrdb.catalog.engines import as_run, engine_version
from openrdb.catalog.setting_values import problem
from openrdb.config import Region
from openrdb.errors import InvalidArguments
from openrdb.operations.desired import main_spec
from openrdb.operations.instances.apply_settings import ApplySettings
from openrdb.state.events import Caller
from openrdb.state.models import Instance
from openrdb.state.statuses import instance as statuses
from openrdb.state.statuses.instance import InstanceStatus

router = APIRouter(prefix=PREFIX + "/instances/{instance_id}/settings")

Values = dict[str, str]


@router.post("")
async def add_instance_settings(
    region: Region,
    instance_id: UUID,
    body: wire.SetSettings,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> wire.InstanceSettings:
    """Add or change settings; return all."""
    _, after = await _change(
        backend, caller, region, instance_id, lambda own: own | _checked(own, body.settings)
    )
    return _show({name: after[name] for name in sorted(after)})


@router.put("")
async def set_instance_settings(
    region: Region,
    instance_id: UUID,
    body: wire.SetSettings,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> wire.InstanceSettings:
    """Replace all settings; return what was just set, in its order."""
    await _change(backend, caller, region, instance_id, lambda own: _checked(own, body.settings))
    return _show({setting.name: setting.value for setting in body.settings})


@router.delete("")
async def delete_instance_settings(
    region: Region,
    instance_id: UUID,
    body: wire.DeleteSettings,
    backend: CurrentBackend,
    caller: CurrentCaller,
) -> wire.InstanceSettings:
    """Set settings back to their defaults; return those that were deleted."""

    def without(own: _Own) -> Values:
        known = {setting.name for setting in own.available}
        for at, name in enumerate(body.setting_names):
            if name not in known:
                help_message = f"{name} is not a setting of {own.version}"
                raise InvalidArguments((f"setting_names.{at}", "constraint", help_message))
        return {name: value for name, value in own.items() if name not in body.setting_names}

    before, after = await _change(backend, caller, region, instance_id, without)
    return _show({name: before[name] for name in sorted(before.keys() - after.keys())})


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


async def _change(
    backend: Backend,
    caller: Caller,
    region: Region,
    instance_id: UUID,
    change: Callable[[_Own], Values],
) -> tuple[Values, Values]:
    """Replace an instance's own settings; return those before and after."""
    find = the_instance(region, instance_id, caller)

    def look() -> tuple[Instance, Values]:
        with backend.database.read() as session:
            instance = find(session)
        statuses.require(instance, ApplySettings.request)
        return instance, change(_Own(instance))

    instance, wanted = await run_in_threadpool(look)
    if not instance.is_unmade:
        check = partial(_check_by_engine, backend, instance, wanted)
        await backend.engine_calls.run(instance, Kind.CHECK, check)
    before: Values = {}

    def prepare(_: Session, instance: Instance) -> ApplySettings | None:
        before.update(instance.settings)
        instance.settings = change(_Own(instance))
        is_broken = instance.status == InstanceStatus.ERROR
        if is_broken and instance.is_unmade:
            return None  # there is no engine that could take them
        return ApplySettings(instance.id, dict(before), repairs=is_broken)

    begun = await run_in_threadpool(backend.begin, caller, find, ApplySettings.request, prepare)
    return before, begun.subject.settings


def _check_by_engine(backend: Backend, instance: Instance, own: Values) -> None:
    """Raise InvalidArguments for what the engine's own reading of its files refuses."""
    spec = dataclasses.replace(main_spec(instance, backend.secrets), settings=own)
    if (why := backend.hosts[instance.primary.host_id].check_configuration(spec)) is not None:
        raise InvalidArguments(("settings", "constraint", why))


def _show(settings: Values) -> wire.InstanceSettings:
    shown = [wire.InstanceSetting(name=name, value=value) for name, value in settings.items()]
    return wire.InstanceSettings(settings=shown)
