"""Users' functions, operators and domains out of the way of scripts that the superuser runs.

Such a script would take what a user has put into its schemas for what it means: its guard refuses it
where there is anything. While nobody else is there they can be in no schema, where no name finds them;
what uses them knows their OIDs.
"""

from __future__ import annotations

from typing import Final

_NONE: Final = 2**31
"""Added to the OID of a schema: that of none."""
_KINDS = (
    ("pg_proc", "pronamespace", "proowner <> 10"),
    ("pg_operator", "oprnamespace", "oprowner <> 10"),
    ("pg_type", "typnamespace", "typowner <> 10 AND typtype = 'd'"),
)

AWAY: Final = "".join(
    f"UPDATE pg_catalog.{table} SET {schema} = ({schema}::int8 + {_NONE})::oid "  # noqa: S608
    f"WHERE {theirs} AND {schema}::int8 < {_NONE};\n"
    for table, schema, theirs in _KINDS
)
"""Statements that put them there."""
BACK: Final = "".join(
    f"UPDATE pg_catalog.{table} SET {schema} = ({schema}::int8 - {_NONE})::oid "  # noqa: S608
    f"WHERE {schema}::int8 >= {_NONE};\n"
    for table, schema, _ in _KINDS
)
"""Statements that put them back. They fail where the script has made what is the same."""
