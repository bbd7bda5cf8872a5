-- Before a script that brings an extension to a newer version: such scripts have not been read, and
-- are run by maintenances only.
DO $openrdb$
BEGIN
    IF NOT (
        SELECT rolsuper FROM pg_catalog.pg_roles
        WHERE oid OPERATOR(pg_catalog.=) session_user::pg_catalog.regrole::pg_catalog.oid
    ) THEN
        RAISE insufficient_privilege USING
            MESSAGE = 'newer versions of this extension come with maintenances of the instance';
    END IF;
END
$openrdb$;
