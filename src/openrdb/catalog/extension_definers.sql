-- Functions of extensions that run with the rights of the superuser who owns them, and look names up
-- where whoever calls them says: they would run what a tenant has put there. From now on they run with
-- the rights of whoever calls them, who also may make the triggers that they make.
DO $openrdb$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT p.oid::pg_catalog.regprocedure AS name,
            p.prorettype OPERATOR(pg_catalog.=) 'pg_catalog.trigger'::pg_catalog.regtype AS is_of_trigger
        FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_depend AS d
            ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
            AND d.objid OPERATOR(pg_catalog.=) p.oid AND d.deptype OPERATOR(pg_catalog.=) 'e'
        WHERE p.prosecdef AND p.proowner OPERATOR(pg_catalog.=) 10::pg_catalog.oid
            -- What the server reads once only; earlier versions have none.
            AND pg_catalog.to_jsonb(p) OPERATOR(pg_catalog.->>) 'prosqlbody' IS NULL
            AND NOT EXISTS (
                SELECT FROM pg_catalog.unnest(p.proconfig) AS own (setting)
                WHERE own.setting OPERATOR(pg_catalog.~) '^search_path='
            )
    LOOP
        EXECUTE pg_catalog.format('ALTER ROUTINE %s SECURITY INVOKER', one.name);
        IF one.is_of_trigger THEN
            EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO PUBLIC', one.name);
        END IF;
    END LOOP;
END
$openrdb$;
