"""How a value stands in Redis.

    offset  bytes  content (little-endian)
         0      2  magic "pc"
         2      1  frame version
         3      1  letter of the layer
         4      1  codec of the body: 0 raw, 1 zstd
         5      1  number of tags t
         6      2  length of the tags g
         8      8  when the computation began, by the store's clock, ms since the Unix epoch
        16      8  when the value ends to be valid, by the same clock
        24      4  how long the computation took, ms
        28      4  length of the payload n
        32      4  length of the body m; n where the codec is raw
        36      g  t tags, each after its length in 1 byte
      36+g      m  body: the payload, or the zstd frame of it
    36+g+m     16  keyed BLAKE2b over the Redis key and everything above

The signature covers the Redis key, so that a value moved to another key, by hand or by a reply that
reached the wrong reader, is refused like a damaged one. Nothing is read of a body, and no memory
taken for it, before the signature is found right; then no more than the header says.
"""

import hashlib
import hmac
import struct
from dataclasses import dataclass

import zstandard

from services.cache.core.layers import LAYER_RULES, Layer
from services.cache.core.tags import MAXIMUM_NOTED_TAGS

__all__ = [
    "FRAME_OVERHEAD_BYTES",
    "FRAME_VERSION",
    "MAXIMUM_PAYLOAD_BYTES",
    "Frame",
    "FrameRejected",
    "decode",
    "encode",
]

FRAME_VERSION = 2

MAXIMUM_PAYLOAD_BYTES = 1024 * 1024
"""The largest value there is; what claims to be larger is not ours."""

_MAGIC = b"pc"
_HEADER = struct.Struct("<2sBcBBHQQIII")
_SIGNATURE_BYTES = 16
_PURPOSE = b"pannier.frame"

_RAW, _ZSTD = 0, 1
# Higher levels cost more than they save, and below this length there is little to save (measured).
_ZSTD_LEVEL = 3
_SHORTEST_COMPRESSED_BYTES = 512

_LONGEST_DELTA_MS = 2**32 - 1
_LONGEST_TAG_BYTES = 255

FRAME_OVERHEAD_BYTES = _HEADER.size + _SIGNATURE_BYTES
"""Length of the frame of a payload that is not compressed, without payload and tags."""


class FrameRejected(Exception):
    """Stored bytes are no value of ours: damaged, moved, of another version or forged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One stored value.

    Attributes:
        layer: Its layer.
        created_ms: When its computation began, by the store's clock, milliseconds since the Unix
            epoch: when the lease was granted or the lookup made that missed.
        expires_ms: When it ends to be valid, by the same clock.
        payload: The value's own encoding, at most 1 MiB.
        tags: What it depends on, at most 33, each at most 255 bytes.
        delta_ms: How long its computation took, milliseconds; 0 where that is not known.
    """

    layer: Layer
    created_ms: int
    expires_ms: int
    payload: bytes
    tags: tuple[str, ...] = ()
    delta_ms: int = 0


def encode(frame: Frame, *, key: bytes, pepper: bytes) -> bytes:
    """Writes a value as it stands in Redis.

    Args:
        frame: The value.
        key: The Redis key it will stand under.
        pepper: Secret of the installation, at most 64 bytes.

    Raises:
        ValueError: The payload is too long, or there are too many tags or too long ones.
    """
    if len(frame.payload) > MAXIMUM_PAYLOAD_BYTES:
        raise ValueError(f"payload of {len(frame.payload)} bytes")
    rules = LAYER_RULES[frame.layer]
    codec, body = _compressed(frame.payload) if rules.compressible else (_RAW, frame.payload)
    tags = _encode_tags(frame.tags)
    header = _HEADER.pack(
        _MAGIC,
        FRAME_VERSION,
        rules.letter,
        codec,
        len(frame.tags),
        len(tags),
        max(0, frame.created_ms),
        max(0, frame.expires_ms),
        min(max(0, frame.delta_ms), _LONGEST_DELTA_MS),
        len(frame.payload),
        len(body),
    )
    signed = b"".join((header, tags, body))
    return signed + _signature(signed, key, pepper)


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
    fields = _HEADER.unpack_from(data)
    magic, version, letter, codec, tag_count, tags_bytes = fields[:6]
    created_ms, expires_ms, delta_ms, payload_bytes, body_bytes = fields[6:]
    if magic != _MAGIC or version != FRAME_VERSION:
        raise FrameRejected("unknown format")
    if letter != LAYER_RULES[layer].letter:
        raise FrameRejected("wrong layer")
    if len(data) != FRAME_OVERHEAD_BYTES + tags_bytes + body_bytes:
        raise FrameRejected("wrong length")
    signed, signature = data[:-_SIGNATURE_BYTES], data[-_SIGNATURE_BYTES:]
    if not hmac.compare_digest(signature, _signature(signed, key, pepper)):
        raise FrameRejected("wrong signature")
    body_at = _HEADER.size + tags_bytes
    return Frame(
        layer=layer,
        created_ms=created_ms,
        expires_ms=expires_ms,
        payload=_decode_body(codec, signed[body_at:], payload_bytes),
        tags=_decode_tags(signed[_HEADER.size : body_at], tag_count),
        delta_ms=delta_ms,
    )


def _compressed(payload: bytes) -> tuple[int, bytes]:
    if len(payload) >= _SHORTEST_COMPRESSED_BYTES:
        body = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(payload)
        if len(body) < len(payload):
            return _ZSTD, body
    return _RAW, payload


def _decode_body(codec: int, body: bytes, payload_bytes: int) -> bytes:
    if payload_bytes > MAXIMUM_PAYLOAD_BYTES:
        raise FrameRejected("too large")
    if codec == _RAW:
        if len(body) != payload_bytes:
            raise FrameRejected("wrong length")
        return body
    if codec != _ZSTD:
        raise FrameRejected("unknown codec")
    try:
        # The library takes the memory that the compressed bytes ask for, whatever it is told.
        if zstandard.get_frame_parameters(body).content_size != payload_bytes:
            raise FrameRejected("wrong length")
        payload: bytes = zstandard.ZstdDecompressor().decompress(body, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise FrameRejected("cannot be decompressed") from error
    return payload


def _encode_tags(tags: tuple[str, ...]) -> bytes:
    if len(tags) > MAXIMUM_NOTED_TAGS:
        raise ValueError(f"{len(tags)} tags")
    texts = [tag.encode() for tag in tags]
    if any(len(text) > _LONGEST_TAG_BYTES for text in texts):
        raise ValueError("a tag is too long")
    return b"".join(bytes((len(text),)) + text for text in texts)


def _decode_tags(data: bytes, count: int) -> tuple[str, ...]:
    tags = []
    position = 0
    try:
        for _ in range(count):
            end = position + 1 + data[position]
            if end > len(data):
                raise FrameRejected("wrong tags")
            tags.append(data[position + 1 : end].decode())
            position = end
    except (IndexError, UnicodeDecodeError) as error:
        raise FrameRejected("wrong tags") from error
    if position != len(data):
        raise FrameRejected("wrong tags")
    return tuple(tags)


def _signature(signed: bytes, key: bytes, pepper: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=_SIGNATURE_BYTES, key=pepper, person=_PURPOSE)
    # Nothing can slip from one part into the other.
    digest.update(len(key).to_bytes(4, "little"))
    digest.update(key)
    digest.update(signed)
    return digest.digest()
