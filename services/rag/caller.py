"""What the caller of the running call may read."""

from services.common.identity import current_identity
from services.rag.core.filters import Access

__all__ = ["caller_access"]


def caller_access() -> Access:
    """Returns what the caller of the running call may read."""
    identity = current_identity.get()
    return Access.of(identity.user_id, identity.group_ids)
