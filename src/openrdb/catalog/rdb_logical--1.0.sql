-- Logical replication without the attribute REPLICATION, which would open base backups of the whole
-- instance: docs/logical-replication.md, and docs/decisions.md for why.
--
-- The functions run as the superuser. What they name is in pg_catalog, as the search path of this
-- script (by the control file) and of each function says; a caller's temporary tables come last, and
-- no function or operator is ever looked up among them. Statements are put together by format() alone.
--
-- The text is the same on all major versions: pg_upgrade keeps it as it was on the older one. So what a
-- version lacks is asked for when a function is called.

-- It fails where there is one already, whoever made it and whatever they put there: IF NOT EXISTS would
-- make functions of the superuser's in a schema whose owner can add some of the same names.
CREATE SCHEMA rdb_logical;

-- Slots are the server's, not a database's. Those that begin with _rdb keep what standbys, replicas,
-- backups and upgrades have not read yet; all others were made by create_slot, as nobody else may make
-- any. Temporary ones are some session's of ours.
CREATE VIEW rdb_logical.slots AS
SELECT s.slot_name, s.plugin, s.database, s.active, s.active_pid, s.catalog_xmin, s.restart_lsn,
    s.confirmed_flush_lsn, s.wal_status, s.safe_wal_size,
    coalesce((to_jsonb(s.*) ->> 'failover')::boolean, false) AS failover
FROM pg_replication_slots AS s
WHERE s.slot_type = 'logical' AND NOT s.temporary AND NOT starts_with(s.slot_name::text, '_rdb')
    AND s.database = current_database();

CREATE FUNCTION rdb_logical.most_slots() RETURNS integer
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS 'SELECT 4';

CREATE FUNCTION rdb_logical.count_slots() RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT count(*) FROM pg_replication_slots AS s
    WHERE s.slot_type = 'logical' AND NOT s.temporary AND NOT starts_with(s.slot_name::text, '_rdb')
$$;

-- A session whose read of a slot failed within a block that caught the error still holds that slot. If
-- it took another one, the server would forget to release the first, and later wait for a process that
-- is gone: when it removes WAL, too.
CREATE FUNCTION rdb_logical.require_free_session(slot_name name) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    held name;
BEGIN
    SELECT s.slot_name INTO held FROM pg_replication_slots AS s
    WHERE s.active_pid = pg_backend_pid() AND s.slot_name IS DISTINCT FROM $1 LIMIT 1;
    IF held IS NOT NULL THEN
        RAISE EXCEPTION 'this session still holds the replication slot "%"', held
            USING ERRCODE = 'object_in_use', HINT = 'A read of it failed before: open another session.';
    END IF;
END
$$;

CREATE FUNCTION rdb_logical.require_slot(slot_name name) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM rdb_logical.slots AS s WHERE s.slot_name = $1) THEN
        RAISE EXCEPTION 'logical replication slot "%" does not exist in database "%"',
            $1, current_database() USING ERRCODE = 'undefined_object';
    END IF;
    PERFORM rdb_logical.require_free_session($1);
END
$$;

CREATE FUNCTION rdb_logical.create_slot(
    INOUT slot_name name, plugin name DEFAULT 'pgoutput', failover boolean DEFAULT false,
    OUT lsn pg_lsn
)
LANGUAGE plpgsql STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF coalesce(current_setting('rdb.enable_logical_replication', true), '') <> 'on' THEN
        RAISE EXCEPTION 'logical replication is not enabled on this instance'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                HINT = 'Set rdb.enable_logical_replication to on in the settings of the instance.';
    END IF;
    IF pg_is_in_recovery() THEN
        RAISE EXCEPTION 'slots are made on the instance itself, not on a read replica'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF current_setting('wal_level') <> 'logical' THEN
        RAISE EXCEPTION 'logical replication takes effect with the next restart of the instance'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Restart the instance.';
    END IF;
    IF slot_name !~ '^[a-z0-9][a-z0-9_]*$' THEN
        RAISE EXCEPTION 'replication slot name "%" is not allowed', slot_name
            USING ERRCODE = 'invalid_name', HINT = 'It may have lower case letters, digits and '
                'underscores, and does not begin with an underscore.';
    END IF;
    IF plugin NOT IN ('pgoutput', 'test_decoding', 'wal2json') THEN
        RAISE EXCEPTION 'output plugin "%" is not allowed', plugin
            USING ERRCODE = 'insufficient_privilege',
                HINT = 'Those that are: pgoutput, test_decoding, and wal2json where it is installed.';
    END IF;
    IF failover AND current_setting('server_version_num')::integer < 170000 THEN
        RAISE EXCEPTION 'slots that outlive a failover come with PostgreSQL 17'
            USING ERRCODE = 'feature_not_supported';
    END IF;
    PERFORM rdb_logical.require_free_session($1);
    IF rdb_logical.count_slots() >= rdb_logical.most_slots() THEN
        RAISE EXCEPTION 'an instance has % logical replication slots at most',
            rdb_logical.most_slots() USING ERRCODE = 'configuration_limit_exceeded',
            HINT = 'Drop one that nobody reads: SELECT * FROM pg_replication_slots.';
    END IF;
    IF failover THEN
        EXECUTE 'SELECT c.lsn '
            'FROM pg_create_logical_replication_slot($1, $2, false, false, true) AS c'
            INTO lsn USING slot_name, plugin;
        -- A standby takes the slot over when it has a moment without transactions before it.
        PERFORM pg_log_standby_snapshot();
    ELSE
        SELECT c.lsn INTO lsn FROM pg_create_logical_replication_slot(slot_name, plugin) AS c;
    END IF;
    -- Others may have made some meanwhile, in other databases too.
    IF rdb_logical.count_slots() > rdb_logical.most_slots() THEN
        PERFORM pg_drop_replication_slot(slot_name);
        RAISE EXCEPTION 'an instance has % logical replication slots at most',
            rdb_logical.most_slots() USING ERRCODE = 'configuration_limit_exceeded';
    END IF;
END
$$;

CREATE FUNCTION rdb_logical.drop_slot(slot_name name) RETURNS void
LANGUAGE plpgsql STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM rdb_logical.require_slot(slot_name);
    PERFORM pg_drop_replication_slot(slot_name);
END
$$;

-- Each reading of a slot would log two lines, and readers come several times a second.
CREATE FUNCTION rdb_logical.advance(slot_name name, upto_lsn pg_lsn) RETURNS pg_lsn
LANGUAGE plpgsql STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET log_min_messages = fatal
AS $$
BEGIN
    PERFORM rdb_logical.require_slot(slot_name);
    RETURN (SELECT a.end_lsn FROM pg_replication_slot_advance(slot_name, upto_lsn) AS a);
END
$$;

CREATE FUNCTION rdb_logical.get_changes(
    slot_name name, upto_lsn pg_lsn, upto_nchanges integer, VARIADIC options text[] DEFAULT '{}'
) RETURNS TABLE (lsn pg_lsn, xid xid, data text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET log_min_messages = fatal
AS $$
BEGIN
    PERFORM rdb_logical.require_slot(slot_name);
    RETURN QUERY SELECT c.lsn, c.xid, c.data FROM pg_logical_slot_get_changes(
        slot_name, upto_lsn, upto_nchanges, VARIADIC options) AS c;
END
$$;

CREATE FUNCTION rdb_logical.peek_changes(
    slot_name name, upto_lsn pg_lsn, upto_nchanges integer, VARIADIC options text[] DEFAULT '{}'
) RETURNS TABLE (lsn pg_lsn, xid xid, data text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET log_min_messages = fatal
AS $$
BEGIN
    PERFORM rdb_logical.require_slot(slot_name);
    RETURN QUERY SELECT c.lsn, c.xid, c.data FROM pg_logical_slot_peek_changes(
        slot_name, upto_lsn, upto_nchanges, VARIADIC options) AS c;
END
$$;

CREATE FUNCTION rdb_logical.get_binary_changes(
    slot_name name, upto_lsn pg_lsn, upto_nchanges integer, VARIADIC options text[] DEFAULT '{}'
) RETURNS TABLE (lsn pg_lsn, xid xid, data bytea)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET log_min_messages = fatal
AS $$
BEGIN
    PERFORM rdb_logical.require_slot(slot_name);
    RETURN QUERY SELECT c.lsn, c.xid, c.data FROM pg_logical_slot_get_binary_changes(
        slot_name, upto_lsn, upto_nchanges, VARIADIC options) AS c;
END
$$;

CREATE FUNCTION rdb_logical.peek_binary_changes(
    slot_name name, upto_lsn pg_lsn, upto_nchanges integer, VARIADIC options text[] DEFAULT '{}'
) RETURNS TABLE (lsn pg_lsn, xid xid, data bytea)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET log_min_messages = fatal
AS $$
BEGIN
    PERFORM rdb_logical.require_slot(slot_name);
    RETURN QUERY SELECT c.lsn, c.xid, c.data FROM pg_logical_slot_peek_binary_changes(
        slot_name, upto_lsn, upto_nchanges, VARIADIC options) AS c;
END
$$;

-- Publications of all tables belong to a superuser, whoever asked for them.
CREATE FUNCTION rdb_logical.create_publication_for_all_tables(
    publication_name name, publish text DEFAULT 'insert, update, delete, truncate',
    publish_via_partition_root boolean DEFAULT false
) RETURNS void
LANGUAGE plpgsql STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF starts_with(publication_name::text, '_rdb') THEN
        RAISE EXCEPTION 'publication name "%" is reserved', publication_name
            USING ERRCODE = 'reserved_name';
    END IF;
    IF publish !~ '^[a-z]+( *, *[a-z]+)*$' THEN
        RAISE EXCEPTION 'unrecognized value for what is published: "%"', publish
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    EXECUTE format(
        'CREATE PUBLICATION %I FOR ALL TABLES WITH (publish = %L, publish_via_partition_root = %s)',
        publication_name, publish, publish_via_partition_root::text
    );
END
$$;

CREATE FUNCTION rdb_logical.drop_publication_for_all_tables(publication_name name) RETURNS void
LANGUAGE plpgsql STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF starts_with(publication_name::text, '_rdb') OR NOT EXISTS (
        SELECT FROM pg_publication AS p
        WHERE p.pubname = publication_name AND p.puballtables AND p.pubowner = 10
    ) THEN
        RAISE EXCEPTION 'publication "%" of all tables does not exist', publication_name
            USING ERRCODE = 'undefined_object';
    END IF;
    EXECUTE format('DROP PUBLICATION %I', publication_name);
END
$$;

-- A slot shows all tables of a publication, also those that its reader may not SELECT. So only the role
-- of the instance's administrators may call these functions, whoever creates this extension; they may
-- grant that to others.
-- Default privileges may have granted something already.
DO $$
DECLARE
    made record;
    grantee record;
BEGIN
    FOR made IN
        SELECT p.oid::regprocedure AS name, p.prosecdef AS is_offered
        FROM pg_proc AS p WHERE p.pronamespace = 'rdb_logical'::regnamespace
    LOOP
        FOR grantee IN
            SELECT DISTINCT a.grantee AS id FROM pg_proc AS p, aclexplode(p.proacl) AS a
            WHERE p.oid = made.name AND a.grantee NOT IN (0, 10)
        LOOP
            EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %I', made.name, pg_get_userbyid(grantee.id));
        END LOOP;
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', made.name);
        IF made.is_offered THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO _rdb_admin WITH GRANT OPTION', made.name);
        END IF;
    END LOOP;
END
$$;

-- It shows less than pg_replication_slots, which everybody may read.
GRANT USAGE ON SCHEMA rdb_logical TO PUBLIC;
GRANT SELECT ON rdb_logical.slots TO PUBLIC;
