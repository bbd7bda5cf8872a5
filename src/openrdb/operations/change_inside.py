"""Users, databases, privileges: what may take more than one transaction of the engine's.

The instance stays `ready`, and the request waits for the end. A crash in the middle, of the control
plane or of the engine, is completed afterwards; what the check refuses changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from openrdb.engines.base import Administration
from openrdb.errors import NotFound
from openrdb.operations.desired import main_spec
from openrdb.operations.durable import Run, operation


@operation("create_user")
def create_user(run: Run) -> None:
    name, verifier = run.parameters["name"], run.parameters["verifier"]
    is_admin = run.parameters["is_admin"]
    with alone(run) as inside:
        run.check(inside.check_create_user, name)
        ensure(run, lambda inside: inside.create_user(name, verifier, is_admin=is_admin))
        run.complete()


@operation("update_user")
def update_user(run: Run) -> None:
    name, verifier = run.parameters["name"], run.parameters["verifier"]
    is_admin = run.parameters["is_admin"]
    with alone(run) as inside:
        run.check(inside.check_update_user, name)
        ensure(run, lambda inside: inside.update_user(name, verifier=verifier, is_admin=is_admin))
        run.complete()


@operation("delete_user")
def delete_user(run: Run) -> None:
    name = run.parameters["name"]
    with alone(run) as inside:
        run.check(inside.check_delete_user, name)
        ensure(run, lambda inside: inside.delete_user(name))
        run.complete()


@operation("create_database")
def create_database(run: Run) -> None:
    name = run.parameters["name"]
    with alone(run) as inside:
        run.check(inside.check_create_database, name)
        ensure(run, lambda inside: inside.create_database(name))
        run.complete()


@operation("delete_database")
def delete_database(run: Run) -> None:
    name = run.parameters["name"]
    with alone(run) as inside:
        run.check(inside.check_delete_database, name)
        ensure(run, lambda inside: inside.delete_database(name))
        run.complete()


@operation("set_privilege")
def set_privilege(run: Run) -> None:
    database, user = run.parameters["database"], run.parameters["user"]
    permission = run.parameters["permission"]
    with alone(run) as inside:
        run.check(inside.check_set_privilege, database, user)
        ensure(run, lambda inside: inside.set_privilege(database, user, permission))
        run.complete()


@contextmanager
def alone(run: Run) -> Iterator[Administration]:
    """The inside of the instance, which no other operation changes meanwhile."""
    spec = main_spec(run.instance(), run.secrets)
    if run.is_checked:  # half done perhaps, and nobody waits for the answer
        run.host.ensure_accepting(spec)
    with run.host.administration(spec, changing=True) as inside:
        yield inside


def ensure(run: Run, change: Callable[[Administration], None]) -> None:
    """Make a change, and again when the engine is back if it ended in the midst."""

    def made() -> None:
        instance = run.instance()
        if instance.status == "deleting":
            raise NotFound("instance", str(instance.id))
        with run.host.administration(main_spec(instance, run.secrets), changing=True) as inside:
            change(inside)

    run.step(made)
