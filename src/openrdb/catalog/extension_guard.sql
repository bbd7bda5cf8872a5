-- Before the script of an extension that the server runs as the superuser on a tenant's behalf
-- (docs/extensions.md). What the script names is looked up in the schemas of its search path: nothing
-- there may be of a tenant's making that could be taken for what the script means, and run. Nothing
-- here is looked up anywhere but in pg_catalog.
DO $openrdb$
DECLARE
    searched text := pg_catalog.current_setting('search_path');
    schemas name[] := pg_catalog.current_schemas(false);
    under_way text[];
    deadline timestamptz;
    foreign_in text;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    -- Names are looked up in what is committed by then; what follows must see the same.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE invalid_transaction_state USING
            MESSAGE = 'this extension is created in transactions that are READ COMMITTED only';
    END IF;
    -- Nothing comes there until this transaction ends, but for what is made already and not committed:
    -- who makes something keeps no lock.
    LOCK pg_proc, pg_operator, pg_cast, pg_type IN SHARE ROW EXCLUSIVE MODE;
    under_way := ARRAY(
        SELECT transactionid::text FROM pg_locks
        WHERE locktype = 'transactionid' AND mode = 'ExclusiveLock' AND granted
            AND pid IS DISTINCT FROM pg_backend_pid()
    );
    deadline := clock_timestamp() + interval '10 seconds';
    WHILE EXISTS (
        SELECT FROM pg_locks WHERE locktype = 'transactionid' AND mode = 'ExclusiveLock' AND granted
            AND transactionid::text = ANY (under_way)
    ) LOOP
        IF clock_timestamp() > deadline THEN
            RAISE lock_not_available USING
                MESSAGE = 'other transactions are under way, which may make what this extension''s '
                    'script would take for something else',
                HINT = 'Try again when they have ended.';
        END IF;
        PERFORM pg_sleep(0.01);
    END LOOP;
    SELECT nspname INTO foreign_in FROM pg_namespace AS n
    WHERE (
        nspname = ANY (schemas) OR n.oid = pg_my_temp_schema()
        -- Schemas that this extension has made, of which a tenant may own some by now.
        OR n.oid IN (
            SELECT objid FROM pg_depend JOIN pg_extension AS e ON e.oid = refobjid
            WHERE classid = 'pg_namespace'::regclass AND refclassid = 'pg_extension'::regclass
                AND deptype = 'e' AND extname = '<extension>'
        )
    ) AND (
        EXISTS (SELECT FROM pg_proc WHERE pronamespace = n.oid AND proowner <> 10)
        OR EXISTS (SELECT FROM pg_operator WHERE oprnamespace = n.oid AND oprowner <> 10)
        -- Who makes a value of a domain runs its checks.
        OR EXISTS (
            SELECT FROM pg_type WHERE typnamespace = n.oid AND typowner <> 10 AND typtype = 'd'
        )
        OR EXISTS (
            SELECT FROM pg_cast JOIN pg_proc AS f ON f.oid = castfunc
            JOIN pg_type AS t ON t.oid IN (castsource, casttarget)
            WHERE t.typnamespace = n.oid AND f.proowner <> 10
        )
        -- Types, tables and views by the names of another extension's: a column's domain has checks, too.
        OR EXISTS (
            SELECT FROM pg_type AS t JOIN pg_type AS meant USING (typname)
            JOIN pg_namespace AS its ON its.oid = meant.typnamespace
            WHERE t.typnamespace = n.oid AND t.typowner <> 10
                AND meant.typowner = 10 AND its.nspname = ANY (schemas)
        )
    );
    IF foreign_in IS NOT NULL THEN
        RAISE insufficient_privilege USING
            MESSAGE = format('the schema "%s" has functions, operators, casts, domains or other '
                'extensions'' names that are not this extension''s', foreign_in),
            HINT = 'Create extensions in a schema of their own before anything else is in it: '
                'CREATE SCHEMA extensions; CREATE EXTENSION ... SCHEMA extensions CASCADE.';
    END IF;
    PERFORM pg_catalog.set_config('search_path', searched, true);
END
$openrdb$;
