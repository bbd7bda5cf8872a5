"""Users and databases: what may take more than one transaction of the engine's.

The instance stays `ready`, and the request waits for the end. A crash in the middle is completed at
the next start; what the first step refuses changes nothing.
"""

from __future__ import annotations

from openrdb.operations.durable import Run, operation
from openrdb.operations.wanted import main_spec


@operation("create_user")
def create_user(run: Run) -> None:
    name, verifier = run.parameters["name"], run.parameters["verifier"]
    with run.host.administration(main_spec(run.instance()), changing=True) as inside:
        run.step(inside.check_create_user, name)
        run.step(inside.create_user, name, verifier, is_admin=run.parameters["is_admin"])
        run.complete()


@operation("update_user")
def update_user(run: Run) -> None:
    name, verifier = run.parameters["name"], run.parameters["verifier"]
    with run.host.administration(main_spec(run.instance()), changing=True) as inside:
        run.step(inside.check_update_user, name)
        is_admin = run.parameters["is_admin"]
        run.step(inside.update_user, name, verifier=verifier, is_admin=is_admin)
        run.complete()


@operation("delete_user")
def delete_user(run: Run) -> None:
    with run.host.administration(main_spec(run.instance()), changing=True) as inside:
        run.step(inside.check_delete_user, run.parameters["name"])
        run.step(inside.delete_user, run.parameters["name"])
        run.complete()


@operation("create_database")
def create_database(run: Run) -> None:
    with run.host.administration(main_spec(run.instance()), changing=True) as inside:
        run.step(inside.check_create_database, run.parameters["name"])
        run.step(inside.create_database, run.parameters["name"])
        run.complete()


@operation("delete_database")
def delete_database(run: Run) -> None:
    with run.host.administration(main_spec(run.instance()), changing=True) as inside:
        run.step(inside.check_delete_database, run.parameters["name"])
        run.step(inside.delete_database, run.parameters["name"])
        run.complete()
