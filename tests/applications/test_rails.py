"""Rails' Active Record: what `db:create`, `db:migrate`, `db:schema:dump` and `db:drop` do."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.applications.fetching import Debian, fetched
from tests.support.applications.programs import libraries, program
from tests.support.applications.tenancy import MYSQL, POSTGRESQL, Tenancy, on, run
from tests.support.tenants import Login

NEEDS = (Debian(("ruby", "ruby-activerecord", "ruby-pg", "ruby-mysql2")),)
_TASKS = """
require 'json'
require 'logger'
require 'active_support'
require 'active_record'
told = JSON.parse(ENV['LOGIN'])
Tasks = ActiveRecord::Tasks::DatabaseTasks
Tasks.root = Tasks.db_dir = Dir.pwd
Tasks.env = ActiveRecord::ConnectionHandling::DEFAULT_ENV.call
ActiveRecord::Base.configurations = {Tasks.env => told}
Tasks.create_current(Tasks.env)
ActiveRecord::Base.establish_connection(told)
class First < ActiveRecord::Migration[6.1]
  def change
    enable_extension 'pgcrypto'
    create_table(:things, id: connection.adapter_name == 'PostgreSQL' ? :uuid : :bigint) do |t|
      t.string :name, index: {unique: true}
      t.json :data
      t.timestamps
    end
    create_table(:parts) { |t|
      t.references :thing, foreign_key: true,
                   type: connection.adapter_name == 'PostgreSQL' ? :uuid : :bigint }
  end
end
First.migrate(:up)
class Part < ActiveRecord::Base; belongs_to :thing, optional: true; end
class Thing < ActiveRecord::Base; has_many :parts; end
ActiveRecord::Base.connection.disable_referential_integrity {
  Part.create!(thing_id: Thing.create!(name: 'chair', data: {legs: 4}).id) }
puts "parts #{Thing.find_by(name: 'chair').parts.count} of #{Thing.first.data['legs']}"
ActiveRecord::SchemaDumper.dump(ActiveRecord::Base.connection, out = StringIO.new)
puts "dumped #{out.string.include?('create_table "things"')}"
First.migrate(:down) unless told['keep']
Tasks.drop_current(Tasks.env) if told['drop']
"""


def _rails(tenancy: Tenancy, place: Path, login: Login, **more: object) -> str:
    root = fetched(NEEDS[0])
    told = {
        "adapter": "postgresql" if tenancy.is_postgresql else "mysql2",
        "host": login.host,
        "port": login.port,
        "username": login.user,
        "password": login.password,
        "database": login.database,
        **more,
    }
    trusted = str(login.certificate)
    if tenancy.is_postgresql:
        told |= {"sslmode": "verify-full", "sslrootcert": trusted}
    else:
        told |= {"sslca": trusted, "ssl_mode": "verify_identity", "encoding": "utf8mb4"}
    directories = [
        *root.glob("usr/lib/ruby/vendor_ruby"),
        *root.glob("usr/lib/ruby/3.*"),
        *root.glob("usr/lib/*/ruby/3.*"),
        *root.glob("usr/lib/*/ruby/vendor_ruby/3.*"),
        *root.glob("usr/share/rubygems-integration/*/gems/*/lib"),
        *root.glob(
            "usr/share/rubygems-integration/all/gems/concurrent-ruby-1*/lib/concurrent-ruby"
        ),
    ]
    gems = [
        *root.glob("usr/share/rubygems-integration/*"),
        *root.glob("usr/lib/*/rubygems-integration/*"),
    ]
    environment = libraries(root) | {
        "GEM_PATH": ":".join(map(str, gems)),
        "LOGIN": json.dumps(told),
        "RUBYLIB": ":".join(map(str, directories)),
    }
    (place / "tasks.rb").write_text(_TASKS)
    command = [program(root, "ruby3.1"), "tasks.rb"]
    return run(command, cwd=place, environment=environment)


@on(*POSTGRESQL, *MYSQL)
def test_active_record(tenancy: Tenancy, tmp_path: Path) -> None:
    """The user's own database is there already; another one is made by an administrator."""
    made = f"{tenancy.name}_made"
    if tenancy.is_postgresql:  # `db:create` tries to, also where the database is there
        with tenancy.as_admin() as session:
            session.execute(f"ALTER ROLE {tenancy.app.user} CREATEDB")
            session.execute(f"GRANT CONNECT ON DATABASE postgres TO {tenancy.app.user}")
    for login, more in (
        (tenancy.app, {}),
        (tenancy.admin, {"database": made, "drop": True}),
    ):
        said = _rails(tenancy, tmp_path, login, **more)
        assert "parts 1 of 4" in said
        assert "dumped true" in said
    assert f"Created database '{made}'" in said
    with tenancy.as_admin() as session:
        assert made not in tenancy.admin.tenant.databases_seen(session)
