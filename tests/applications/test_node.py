"""Of Node: Knex, Sequelize, TypeORM, and a queue of jobs by LISTEN (graphile-worker)."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.applications.fetching import Npm, fetched
from tests.support.applications.tenancy import CHEAP_POSTGRESQL, MYSQL, Tenancy, on, run

NEEDS = (
    Npm(
        (
            *("knex@3.3.0", "sequelize@6.37.8", "typeorm@1.1.1", "reflect-metadata@0.2.2"),
            *("graphile-worker@0.18.0", "pg@8.23.1", "mysql2@3.24.6"),
        )
    ),
)
_KNEX = """
const login = JSON.parse(process.env.LOGIN)
const knex = require('knex')({client: login.engine === 'mysql' ? 'mysql2' : 'pg', connection: {
  host: login.host, port: login.port, user: login.user, password: login.password,
  database: login.database, ssl: {ca: login.ca}}})
const migration = {
  up: k => k.schema.createTable('things', t => {
    t.increments(); t.string('name').unique(); t.json('data'); t.timestamps(true, true) }),
  down: k => k.schema.dropTable('things'),
}
const migrations = {migrationSource: {
  getMigrations: async () => ['first'], getMigrationName: name => name,
  getMigration: async () => migration}}
;(async () => {
  await knex.migrate.latest(migrations)
  await knex.transaction(t => t('things').insert({name: 'chair', data: '{"legs": 4}'}))
  const failed = knex.transaction(async t => {
    await t('things').insert({name: 'table'}); throw new Error('taken back') })
  await failed.catch(error => console.log(error.message))
  console.log('rows', (await knex('things').select('name')).map(r => r.name).join())
  await knex.migrate.rollback(migrations)
  console.log('gone', !(await knex.schema.hasTable('things')))
  await knex.destroy()
})()
"""
_SEQUELIZE = """
const {Sequelize, DataTypes} = require('sequelize')
const login = JSON.parse(process.env.LOGIN)
const db = new Sequelize(login.database, login.user, login.password, {
  host: login.host, port: login.port, dialect: login.engine, logging: false,
  dialectOptions: {ssl: {ca: login.ca}}})
const Thing = db.define('thing', {name: {type: DataTypes.STRING(50), unique: true},
  state: DataTypes.ENUM('new', 'sold'), data: DataTypes.JSON})
const Part = db.define('part', {}); Thing.hasMany(Part); Part.belongsTo(Thing)
;(async () => {
  await db.sync({force: true})
  await db.sync({alter: true})
  await Thing.create({name: 'chair', state: 'sold', data: {legs: 4}, parts: [{}, {}]},
                     {include: Part})
  const found = await Thing.findOne({where: {state: 'sold'}, include: Part})
  console.log('parts', found.parts.length, found.data.legs)
  await db.close()
})()
"""
_TYPEORM = """
require('reflect-metadata')
const {DataSource, EntitySchema} = require('typeorm')
const login = JSON.parse(process.env.LOGIN)
const Thing = new EntitySchema({name: 'thing', columns: {
  id: {type: 'uuid', primary: true, generated: 'uuid'},
  name: {type: 'varchar', length: 50, unique: true}, data: {type: 'json', nullable: true}}})
const source = new DataSource({type: login.engine, host: login.host, port: login.port,
  username: login.user, password: login.password, database: login.database,
  ssl: {ca: login.ca}, entities: [Thing], synchronize: true})
;(async () => {
  await source.initialize()
  const things = source.getRepository('thing')
  const {id} = await things.save({name: 'chair', data: {legs: 4}})
  console.log('uuid', id.length, (await things.findOneBy({id})).data.legs)
  await source.synchronize()
  await source.destroy()
})()
"""
_WORKER = """
const {runOnce, makeWorkerUtils} = require('graphile-worker'), {Pool} = require('pg')
const login = JSON.parse(process.env.LOGIN)
const pgPool = new Pool({host: login.host, port: login.port, user: login.user,
  password: login.password, database: login.database, ssl: {ca: login.ca}})
;(async () => {
  const utils = await makeWorkerUtils({pgPool})
  await utils.migrate()
  await utils.addJob('greet', {name: 'chair'})
  await runOnce({pgPool, taskList: {greet: async payload => console.log('hello', payload.name)}})
  await utils.release(); await pgPool.end()
})()
"""


def _node(tenancy: Tenancy, place: Path, script: str) -> str:
    login = tenancy.app
    assert login.certificate is not None
    told = {
        "engine": "postgres" if tenancy.is_postgresql else "mysql",
        "host": login.host,
        "port": login.port,
        "user": login.user,
        "password": login.password,
        "database": login.database,
        "ca": login.certificate.read_text(),
    }
    modules = fetched(NEEDS[0]) / "node_modules"
    environment = {"LOGIN": json.dumps(told), "NODE_PATH": str(modules)}
    return run(["node", "-e", script], cwd=place, environment=environment)


@on(*CHEAP_POSTGRESQL, *MYSQL)
def test_knex(tenancy: Tenancy, tmp_path: Path) -> None:
    said = _node(tenancy, tmp_path, _KNEX).splitlines()
    assert said == ["taken back", "rows chair", "gone true"]
    assert tenancy.count("SELECT COUNT(*) FROM knex_migrations") == 0


@on(*CHEAP_POSTGRESQL, *MYSQL)
def test_sequelize(tenancy: Tenancy, tmp_path: Path) -> None:
    assert _node(tenancy, tmp_path, _SEQUELIZE).splitlines() == ["parts 2 4"]
    assert tenancy.count("SELECT COUNT(*) FROM parts") == 2


@on(*CHEAP_POSTGRESQL, *MYSQL)
def test_typeorm(tenancy: Tenancy, tmp_path: Path) -> None:
    """On PostgreSQL it creates uuid-ossp by itself."""
    assert _node(tenancy, tmp_path, _TYPEORM).splitlines() == ["uuid 36 4"]
    if tenancy.is_postgresql:
        made = "SELECT COUNT(*) FROM pg_extension WHERE extname = 'uuid-ossp'"
        assert tenancy.count(made) == 1


@on(*CHEAP_POSTGRESQL)
def test_graphile_worker(tenancy: Tenancy, tmp_path: Path) -> None:
    assert "hello chair" in _node(tenancy, tmp_path, _WORKER)
    assert tenancy.count("SELECT COUNT(*) FROM graphile_worker.jobs") == 0
    assert tenancy.count("SELECT COUNT(*) FROM graphile_worker.migrations") > 10
