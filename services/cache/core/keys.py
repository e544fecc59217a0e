"""The one place where keys are made, for reading as for writing.

A key is a keyed digest of everything that decides the value. Whoever can read Redis learns neither
texts nor tenants from it, and without the pepper cannot even confirm a guess.
"""

import hashlib
from collections.abc import Mapping

import orjson

from services.cache.core.layers import LAYER_RULES, Layer

__all__ = ["DIGEST_BYTES", "KEY_PREFIX", "SCHEMA_VERSION", "entry_key"]

SCHEMA_VERSION = 1
"""Raised when the meaning of keys or values changes; old entries then simply expire."""

KEY_PREFIX = b"pannier:%d:" % SCHEMA_VERSION

# 160 bits: neither chance nor intent finds two requests with the same key.
DIGEST_BYTES = 20
_PURPOSE = b"pannier.key"


def entry_key(
    layer: Layer, *, tenant_id: str, fields: Mapping[str, object], pepper: bytes
) -> bytes:
    """Makes the Redis key of a value.

    Args:
        layer: Layer of the value.
        tenant_id: Owner of the value.
        fields: Everything else that decides the value, as JSON values; the order never matters.
        pepper: Secret of the installation, at most 64 bytes.

    Returns:
        Prefix, the layer's letter and 40 hexadecimal digits.
    """
    canonical = orjson.dumps(
        {"schema": SCHEMA_VERSION, "layer": layer.value, "tenant": tenant_id, "fields": fields},
        option=orjson.OPT_SORT_KEYS,
    )
    digest = hashlib.blake2b(canonical, digest_size=DIGEST_BYTES, key=pepper, person=_PURPOSE)
    return b"%b%b:%b" % (KEY_PREFIX, LAYER_RULES[layer].letter, digest.hexdigest().encode())
