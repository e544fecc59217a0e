"""What a session of the database is confined to, and remembering it.

A confined session sees and changes what its role may, by row-level security, of one tenant's rows.
"""

from typing import TYPE_CHECKING, Any

import asyncpg

from services.rag.adapters.postgres_role import quote_identifier, quote_literal

__all__ = ["Confinement", "SessionConnection"]

if TYPE_CHECKING:
    _Connection = asyncpg.Connection[asyncpg.Record]
else:
    # Generic for type checkers alone.
    _Connection = asyncpg.Connection

_FREE = "RESET ROLE; RESET app.tenant; RESET default_transaction_read_only"


class Confinement:
    """The statements that confine to a tenant.

    Args:
        role: Role that is bound by row-level security; empty for none.
    """

    def __init__(self, role: str) -> None:
        self._role = quote_identifier(role) if role else ""

    def of_transaction(self, tenant_id: str) -> str:
        """Returns what confines the running transaction, until its end."""
        tenant = f"SET LOCAL app.tenant = {quote_literal(tenant_id)}"
        return f"{tenant}; SET LOCAL ROLE {self._role}" if self._role else tenant

    def of_session(self, tenant_id: str) -> str:
        """Returns what confines a session that is in no transaction, and lets it only read."""
        tenant = (
            f"SET app.tenant = {quote_literal(tenant_id)}; SET default_transaction_read_only = on"
        )
        return f"{tenant}; SET ROLE {self._role}" if self._role else tenant


class SessionConnection(_Connection):
    """A connection that knows what its session is confined to."""

    __slots__ = ("_is_known", "_tenant_id")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._is_known = True
        self._tenant_id: str | None = None

    async def confine(self, confinement: Confinement, tenant_id: str | None) -> None:
        """Confines the session, if it is not yet; to be called outside of transactions.

        Args:
            confinement: How; always the same for one connection.
            tenant_id: To which tenant; None for to none.
        """
        if self._is_known and self._tenant_id == tenant_id:
            return
        # Who is cancelled meanwhile does not know whether it has been done.
        self._is_known = False
        await self.execute(_FREE if tenant_id is None else confinement.of_session(tenant_id))
        self._tenant_id = tenant_id
        self._is_known = True
