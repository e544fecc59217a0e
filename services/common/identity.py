"""Who is calling: tenant and user, from the call's metadata.

Until authentication is configured, the caller's word is taken (a development identity, on loopback
only); a call that names no tenant belongs to the tenant `default`. Nothing of this ever stands in a
message body.
"""

import re
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass

from services.common.errors import InvalidIdentity

__all__ = [
    "GROUPS_HEADER",
    "TENANT_HEADER",
    "USER_HEADER",
    "Identity",
    "current_identity",
    "identity_from_metadata",
    "identity_metadata",
]

TENANT_HEADER = "x-pannier-tenant-id"
USER_HEADER = "x-pannier-user-id"
GROUPS_HEADER = "x-pannier-group-ids"

_TENANT = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_USER = re.compile(r"[!-~]{1,128}")
_GROUP = re.compile(r"[!-+\--~]{1,128}")
_MOST_GROUPS = 256


@dataclass(frozen=True, slots=True)
class Identity:
    """The caller.

    Attributes:
        tenant_id: Owner of everything the call reads and writes.
        user_id: Person or program within the tenant; empty where not given.
        group_ids: Groups the user belongs to, sorted.
    """

    tenant_id: str = "default"
    user_id: str = ""
    group_ids: tuple[str, ...] = ()


NO_IDENTITY = Identity()

current_identity: ContextVar[Identity] = ContextVar("current_identity", default=NO_IDENTITY)
"""The caller of the call that the running task works for."""


def identity_from_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> Identity:
    """Reads the caller's identity.

    Args:
        metadata: Pairs of lower-case key and value.

    Raises:
        InvalidIdentity: Tenant, user or groups have a form that is not allowed, or there are two
            tenants.
    """
    tenant_id, user_id = "", ""
    group_ids: set[str] = set()
    for key, value in metadata:
        if key == TENANT_HEADER:
            if tenant_id not in ("", value):
                raise InvalidIdentity(TENANT_HEADER, "a call belongs to one tenant, not to two.")
            tenant_id = str(value)
            if not _TENANT.fullmatch(tenant_id):
                raise InvalidIdentity(
                    TENANT_HEADER,
                    "a tenant has 1 to 64 characters of a-z, 0-9, '.', '_', '-' "
                    "and begins with a letter or digit.",
                )
        elif key == USER_HEADER:
            user_id = str(value)
            if not _USER.fullmatch(user_id):
                raise InvalidIdentity(USER_HEADER, "a user has 1 to 128 visible ASCII characters.")
        elif key == GROUPS_HEADER:
            group_ids.update(each.strip() for each in str(value).split(","))
            if len(group_ids) > _MOST_GROUPS or not all(map(_GROUP.fullmatch, group_ids)):
                raise InvalidIdentity(
                    GROUPS_HEADER,
                    "groups are at most 256, separated by commas, each of 1 to 128 visible ASCII "
                    "characters.",
                )
    return Identity(tenant_id or "default", user_id, tuple(sorted(group_ids)))


def identity_metadata(identity: Identity) -> list[tuple[str, str]]:
    """Writes an identity for a call to another service."""
    pairs = [(TENANT_HEADER, identity.tenant_id)]
    if identity.user_id:
        pairs.append((USER_HEADER, identity.user_id))
    return pairs
