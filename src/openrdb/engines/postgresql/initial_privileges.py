"""What scripts of extensions have granted, as the server notes it for pg_dump.

Where a backup was loaded some of it was granted by the role that loads backups, which owned the
extension's schema then and has no power over it now: nobody can grant it so again.
"""

from __future__ import annotations

from typing import Final

from openrdb.engines.transfers import RESTORE_ROLE

_RESTORED = f"""
    FROM pg_init_privs WHERE EXISTS (
        SELECT FROM aclexplode(initprivs) JOIN pg_roles r ON r.oid IN (grantor, grantee)
        WHERE rolname = '{RESTORE_ROLE}'
    )
"""
RESTORED: Final = f"SELECT 1 {_RESTORED} LIMIT 1"
"""Finds whether there is anything of that."""
FORGET_RESTORED: Final = (
    f"DELETE {_RESTORED}",
    f"""
    DELETE FROM pg_shdepend USING pg_roles r, pg_database d
    WHERE deptype = 'i' AND dbid = d.oid AND datname = current_database()
        AND refobjid = r.oid AND rolname = '{RESTORE_ROLE}'
    """,  # noqa: S608
)
"""Statements for a superuser who may change the catalogue: what is granted now is all that counts."""
