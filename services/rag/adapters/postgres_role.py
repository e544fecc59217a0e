"""The role under which transactions of a tenant run, bound by row-level security.

The login role owns the tables, and is often a superuser; neither is bound by policies. The confined
role reaches those tables alone that have policies.
"""

from contextlib import suppress

import asyncpg

from services.rag.core.errors import StoreRoleUnusable

__all__ = ["ensure_role", "quote_identifier", "quote_literal"]

_LOCK_KEY = 7_267_003_152

_FACTS = """
SELECT login.rolsuper AS superuser,
    coalesce(login.rolsuper OR pg_has_role(login.oid, role.oid, 'MEMBER'), false) AS usable,
    -- Policies do not bind who owns the tables, nor who has the owner's rights.
    coalesce(role.rolsuper OR role.rolbypassrls OR EXISTS (
        SELECT FROM pg_class
        WHERE relnamespace = 'rag'::regnamespace AND relrowsecurity
            AND pg_has_role(role.oid, relowner, 'USAGE')
    ), false) AS unbound,
    role.oid IS NOT NULL AS exists
FROM pg_roles AS login LEFT JOIN pg_roles AS role ON role.rolname = $1
WHERE login.rolname = current_user
"""
_GRANTS = """
SELECT format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO {role}', oid::regclass) AS statement
FROM pg_class
WHERE relnamespace = 'rag'::regnamespace AND relrowsecurity
    AND NOT has_table_privilege($1::text, oid, 'DELETE')
UNION ALL
SELECT format('GRANT USAGE ON SEQUENCE %s TO {role}', oid::regclass)
FROM pg_class
WHERE relnamespace = 'rag'::regnamespace
    AND CASE WHEN relkind = 'S' THEN NOT has_sequence_privilege($1::text, oid, 'USAGE') END
"""


async def ensure_role(connection: asyncpg.Connection, role: str) -> None:
    """Makes sure that a role is there, may be taken on, and reaches the confined tables.

    Args:
        connection: Outside any transaction, to a migrated database.
        role: Its name.

    Raises:
        StoreRoleUnusable: It cannot be made or taken on, or is not bound by row-level security.
    """
    await connection.execute("SELECT pg_advisory_lock($1)", _LOCK_KEY)
    try:
        (facts,) = await connection.fetch(_FACTS, role)
        if not (facts["exists"] and facts["usable"]):
            await _make(connection, role, member=not facts["superuser"])
            (facts,) = await connection.fetch(_FACTS, role)
        if facts["unbound"] or not facts["exists"] or not facts["usable"]:
            raise StoreRoleUnusable(role)
        name = quote_identifier(role)
        await connection.execute(f"GRANT USAGE ON SCHEMA rag TO {name}")
        for row in await connection.fetch(_GRANTS.format(role=name), role):
            await connection.execute(row["statement"])
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK_KEY)


async def _make(connection: asyncpg.Connection, role: str, *, member: bool) -> None:
    name = quote_identifier(role)
    # Roles belong to all databases of a server: another one may just be making the same.
    taken = (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError)
    try:
        with suppress(*taken):
            await connection.execute(f"CREATE ROLE {name} NOLOGIN")
        if member:
            await connection.execute(f"GRANT {name} TO CURRENT_USER")
    except asyncpg.InsufficientPrivilegeError as error:
        raise StoreRoleUnusable(role) from error


def quote_literal(text: str) -> str:
    """Returns a text as SQL, whatever the server's settings."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quote_identifier(name: str) -> str:
    """Returns a name as SQL."""
    return '"' + name.replace('"', '""') + '"'
