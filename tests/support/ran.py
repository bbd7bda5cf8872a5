"""A function of a tenant's that notes as whom the server has run it."""

from __future__ import annotations

NOTES = """
    CREATE TABLE app.ran (who text, superuser bool);
    CREATE FUNCTION app.note() RETURNS int LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO app.ran SELECT rolname, rolsuper FROM pg_roles WHERE rolname = current_user;
            RETURN 1;
        END
    $$;
    CREATE FUNCTION app.one(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
        'BEGIN PERFORM app.note(); RETURN 1; END';
"""
"""What makes it as `app.one`, and the table `app.ran`; in expressions it stands for 1."""
