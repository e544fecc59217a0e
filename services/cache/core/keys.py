"""The one place where keys are made, for reading as for writing.

A key is a keyed digest of everything that decides the value. Whoever can read Redis learns neither
texts nor tenants from it, and without the pepper cannot even confirm a guess.
"""

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from services.cache.core.layers import Layer

__all__ = ["KEY_PREFIX", "SCHEMA_VERSION", "EntryKey", "entry_key"]

SCHEMA_VERSION = 2
"""Raised when the meaning of keys or values changes; old entries then simply expire."""

KEY_PREFIX = b"pannier:%d:" % SCHEMA_VERSION

# 160 bits: neither chance nor intent finds two requests with the same key.
_DIGEST_BYTES = 20
_PURPOSE = b"pannier.key"


@dataclass(frozen=True, slots=True)
class EntryKey:
    """The names under which everything of one entry stands in Redis.

    The digest is the hash tag, so that in a cluster all of an entry is in one slot, where a script
    may touch it, and the entries of a tenant are spread over all of them.

    Attributes:
        digest: 27 characters of base64url.
    """

    digest: bytes

    @property
    def value(self) -> bytes:
        """Where the value is; it is also what the local level knows the entry by."""
        return b"%b{%b}:v" % (KEY_PREFIX, self.digest)

    @property
    def lease(self) -> bytes:
        """Where the right to compute the value is."""
        return b"%b{%b}:l" % (KEY_PREFIX, self.digest)

    @property
    def stream(self) -> bytes:
        """Where the value appears while it is computed."""
        return b"%b{%b}:s" % (KEY_PREFIX, self.digest)

    @property
    def failures(self) -> bytes:
        """Where failures to compute the value are remembered."""
        return b"%b{%b}:n" % (KEY_PREFIX, self.digest)


def entry_key(
    layer: Layer,
    *,
    tenant_id: str,
    namespace: str,
    fields: Mapping[str, object],
    pepper: bytes,
) -> EntryKey:
    """Makes the key of an entry.

    Args:
        layer: Layer of the value.
        tenant_id: Owner of the value.
        namespace: Compartment of the tenant; empty where none is named.
        fields: Everything else that decides the value, as JSON values; the order never matters.
        pepper: Secret of the installation, at most 64 bytes.
    """
    canonical = orjson.dumps(
        {
            "schema": SCHEMA_VERSION,
            "layer": layer.value,
            "tenant": tenant_id,
            "namespace": namespace,
            "fields": fields,
        },
        option=orjson.OPT_SORT_KEYS,
    )
    digest = hashlib.blake2b(canonical, digest_size=_DIGEST_BYTES, key=pepper, person=_PURPOSE)
    return EntryKey(urlsafe_b64encode(digest.digest()).rstrip(b"="))
