"""SQLAlchemy with Alembic: a migration made from models, forth and back."""

from __future__ import annotations

import datetime as dt
import enum
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy import orm

from tests.support.applications.tenancy import CHEAP_POSTGRESQL, MYSQL, Tenancy, on

_ENVIRONMENT = """
from alembic import context
engine, metadata = context.config.attributes["engine"], context.config.attributes["metadata"]
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=metadata)
    with context.begin_transaction():
        context.run_migrations()
"""
_TEMPLATE = """
import sqlalchemy as sa
from alembic import op
revision, down_revision, branch_labels, depends_on = ${repr(up_revision)}, None, None, None
def upgrade():
    ${upgrades}
def downgrade():
    ${downgrades}
"""


class _Base(orm.DeclarativeBase):
    pass


class _State(enum.Enum):
    NEW = "new"
    SOLD = "sold"


class _Thing(_Base):
    __tablename__ = "things"
    __table_args__ = (sa.Index("by_name", "name"), sa.CheckConstraint("price >= 0", "priced"))
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(sa.String(50))
    price: orm.Mapped[float] = orm.mapped_column(sa.Numeric(10, 2))
    state: orm.Mapped[_State] = orm.mapped_column(sa.Enum(_State, name="state"))
    made: orm.Mapped[dt.datetime] = orm.mapped_column(server_default=sa.func.now())
    parts: orm.Mapped[list[_Part]] = orm.relationship(cascade="all, delete-orphan")


class _Part(_Base):
    __tablename__ = "parts"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    thing_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("things.id", ondelete="CASCADE"))
    data: orm.Mapped[dict[str, int]] = orm.mapped_column(sa.JSON)


@on(*CHEAP_POSTGRESQL, *MYSQL)
def test_alembic(tenancy: Tenancy, tmp_path: Path) -> None:
    login = tenancy.app
    driver = "postgresql+psycopg" if tenancy.is_postgresql else "mysql+pymysql"
    url = sa.URL.create(driver, login.user, login.password, login.host, login.port, login.database)
    trusted = str(login.certificate)
    tls = {"sslmode": "verify-full", "sslrootcert": trusted}
    engine = sa.create_engine(
        url, connect_args=tls if tenancy.is_postgresql else {"ssl": {"ca": trusted}}
    )
    (tmp_path / "versions").mkdir()
    (tmp_path / "env.py").write_text(_ENVIRONMENT)
    (tmp_path / "script.py.mako").write_text(_TEMPLATE)
    config = Config(attributes={"engine": engine, "metadata": _Base.metadata})
    config.set_main_option("script_location", str(tmp_path))
    command.revision(config, "first", autogenerate=True)
    command.upgrade(config, "head")
    command.check(config)  # what is there is what the models say
    with orm.Session(engine) as session, session.begin():
        parts = [_Part(data={"legs": 4}), _Part(data={})]
        session.add(_Thing(name="chair", price=9.5, state=_State.SOLD, parts=parts))
    with orm.Session(engine) as session, session.begin():
        (thing,) = session.scalars(sa.select(_Thing).where(_Thing.state == _State.SOLD))
        assert [part.data for part in thing.parts] == [{"legs": 4}, {}]
        session.delete(thing)
    assert tenancy.count("SELECT COUNT(*) FROM parts") == 0
    command.downgrade(config, "base")
    assert sa.inspect(engine).get_table_names() == ["alembic_version"]
    engine.dispose()
