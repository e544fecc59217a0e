"""How a value stands in Redis.

    offset  bytes  content (little-endian)
         0      2  magic "pc"
         2      1  frame version
         3      1  letter of the layer
         4      8  when the value was stored, ms since the Unix epoch
        12      8  when it ends to be valid, ms since the Unix epoch
        20      4  payload length n
        24      n  payload
      24+n     16  keyed BLAKE2b over the Redis key and everything above

The signature covers the Redis key, so that a value moved to another key, by hand or by a reply that
reached the wrong reader, is refused like a damaged one.
"""

import hashlib
import hmac
import struct
from dataclasses import dataclass

from services.cache.core.layers import LAYER_RULES, Layer

__all__ = ["FRAME_OVERHEAD_BYTES", "FRAME_VERSION", "Frame", "FrameRejected", "decode", "encode"]

FRAME_VERSION = 1

_MAGIC = b"pc"
_HEADER = struct.Struct("<2sBcQQI")
_SIGNATURE_BYTES = 16
_PURPOSE = b"pannier.frame"

FRAME_OVERHEAD_BYTES = _HEADER.size + _SIGNATURE_BYTES


class FrameRejected(Exception):
    """Stored bytes are no value of ours: damaged, moved, of another version or forged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One stored value.

    Attributes:
        layer: Its layer.
        created_ms: When it was stored, milliseconds since the Unix epoch.
        expires_ms: When it ends to be valid, milliseconds since the Unix epoch.
        payload: The value's own encoding.
    """

    layer: Layer
    created_ms: int
    expires_ms: int
    payload: bytes


def encode(frame: Frame, *, key: bytes, pepper: bytes) -> bytes:
    """Writes a value as it stands in Redis.

    Args:
        frame: The value.
        key: The Redis key it will stand under.
        pepper: Secret of the installation, at most 64 bytes.
    """
    header = _HEADER.pack(
        _MAGIC,
        FRAME_VERSION,
        LAYER_RULES[frame.layer].letter,
        frame.created_ms,
        frame.expires_ms,
        len(frame.payload),
    )
    body = header + frame.payload
    return body + _signature(body, key, pepper)


def decode(data: bytes, *, layer: Layer, key: bytes, pepper: bytes) -> Frame:
    """Reads a value and proves that it is what was once stored under this key.

    Args:
        data: The bytes found.
        layer: Layer asked for.
        key: Redis key asked for.
        pepper: Secret of the installation.

    Raises:
        FrameRejected: The bytes are anything else.
    """
    if len(data) < FRAME_OVERHEAD_BYTES:
        raise FrameRejected("truncated")
    magic, version, letter, created_ms, expires_ms, length = _HEADER.unpack_from(data)
    if magic != _MAGIC or version != FRAME_VERSION:
        raise FrameRejected("unknown format")
    if letter != LAYER_RULES[layer].letter or length != len(data) - FRAME_OVERHEAD_BYTES:
        raise FrameRejected("wrong layer or length")
    body, signature = data[:-_SIGNATURE_BYTES], data[-_SIGNATURE_BYTES:]
    if not hmac.compare_digest(signature, _signature(body, key, pepper)):
        raise FrameRejected("wrong signature")
    return Frame(
        layer=layer,
        created_ms=created_ms,
        expires_ms=expires_ms,
        payload=body[_HEADER.size :],
    )


def _signature(body: bytes, key: bytes, pepper: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=_SIGNATURE_BYTES, key=pepper, person=_PURPOSE)
    # All keys have one length, so that nothing can slip from one part into the other.
    digest.update(key)
    digest.update(body)
    return digest.digest()
