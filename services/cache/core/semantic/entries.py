"""Questions with answers: what identifies them, and how they stand in the shared store.

    offset  bytes  content (little-endian)
         0      8  prompt tokens that the answer took
         8      8  completion tokens
        16      8  seconds, binary64
        24      8  version
        32      4  length n of the question
        36      n  the question, UTF-8
      36+n      .  its unit vector, binary32

An entry is called by two digests: of the question's normal form, so that there is one entry for
each, and of its answer, so that a report on an older answer never hits a newer one.
"""

import base64
import hashlib
import struct
from dataclasses import dataclass, replace

import numpy as np

from services.cache.core.model import Scope
from services.cache.core.savings import Savings
from services.cache.core.semantic.index import FloatVector

__all__ = [
    "VERSION_BYTES",
    "MalformedEntry",
    "SemanticEntry",
    "answer_version",
    "decode_entry",
    "encode_entry",
    "entry_id",
    "form_digest",
    "split_entry_id",
]

VERSION_BYTES = 8

_FORM_BYTES = 20
_FORM_PURPOSE = b"pannier.form"
_VERSION_PURPOSE = b"pannier.version"
_SEPARATOR = "."
_HEADER = struct.Struct(f"<qqd{VERSION_BYTES}sI")
_COMPONENT_BYTES = 4


class MalformedEntry(Exception):
    """Bytes are no entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticEntry:
    """A question that has an answer.

    Attributes:
        scope: What it belongs to.
        form: Digest of its normal form.
        version: Digest of its answer, 8 bytes.
        question: Its words.
        created_ms: What the answer knows is as old as this, milliseconds since the Unix epoch.
        expires_ms: When it ends to be valid, milliseconds since the Unix epoch.
        tags: What the answer depends on.
        savings: What the answer cost.
    """

    scope: Scope
    form: str
    version: bytes
    question: str
    created_ms: int
    expires_ms: int
    tags: tuple[str, ...]
    savings: Savings

    @property
    def entry_id(self) -> str:
        """What callers call it."""
        return entry_id(self.form, self.version)

    @property
    def key(self) -> tuple[str, bytes]:
        """What tells it from all others of its partition, earlier ones included."""
        return self.form, self.version

    def expiring(self, expires_ms: int) -> "SemanticEntry":
        """Returns the same entry with another end."""
        return replace(self, expires_ms=expires_ms)


def form_digest(normal_form: str, *, partition_id: str, pepper: bytes) -> str:
    """Returns the digest of a question's normal form, 27 characters.

    Args:
        normal_form: The question, equal for all ways to write it that make no difference.
        partition_id: Its partition.
        pepper: Secret of the installation, at most 64 bytes.
    """
    digest = hashlib.blake2b(digest_size=_FORM_BYTES, key=pepper, person=_FORM_PURPOSE)
    # All partitions' names have one length.
    digest.update(partition_id.encode())
    digest.update(normal_form.encode())
    return _base64(digest.digest())


def answer_version(answer: bytes, *, pepper: bytes) -> bytes:
    """Returns the digest of an answer and all that belongs to it."""
    return hashlib.blake2b(
        answer, digest_size=VERSION_BYTES, key=pepper, person=_VERSION_PURPOSE
    ).digest()


def entry_id(form: str, version: bytes) -> str:
    """Returns what callers call an entry."""
    return f"{form}{_SEPARATOR}{_base64(version)}"


def split_entry_id(text: str) -> tuple[str, bytes] | None:
    """Returns form and version of an entry's name; None where it is no such name."""
    form, _, encoded = text.partition(_SEPARATOR)
    form_bytes, version = _from_base64(form), _from_base64(encoded)
    if form_bytes is None or version is None:
        return None
    if len(form_bytes) != _FORM_BYTES or len(version) != VERSION_BYTES:
        return None
    # Several texts decode to the same bytes; only one of them is the name.
    return (form, version) if entry_id(_base64(form_bytes), version) == text else None


def encode_entry(entry: SemanticEntry, vector: FloatVector) -> bytes:
    """Writes an entry; what a frame says around it is left out."""
    question = entry.question.encode()
    header = _HEADER.pack(
        entry.savings.prompt_token_count,
        entry.savings.completion_token_count,
        entry.savings.seconds,
        entry.version,
        len(question),
    )
    return header + question + vector.astype("<f4").tobytes()


def decode_entry(
    payload: bytes,
    *,
    scope: Scope,
    form: str,
    created_ms: int,
    expires_ms: int,
    tags: tuple[str, ...],
) -> tuple[SemanticEntry, FloatVector]:
    """Reads an entry and its vector; see `SemanticEntry` for what has to be known before.

    Raises:
        MalformedEntry: The bytes are none.
    """
    if len(payload) < _HEADER.size:
        raise MalformedEntry("truncated")
    prompt_count, completion_count, seconds, version, length = _HEADER.unpack_from(payload)
    end = _HEADER.size + length
    if end >= len(payload) or (len(payload) - end) % _COMPONENT_BYTES:
        raise MalformedEntry("wrong length")
    entry = SemanticEntry(
        scope=scope,
        form=form,
        version=version,
        question=payload[_HEADER.size : end].decode(),
        created_ms=created_ms,
        expires_ms=expires_ms,
        tags=tags,
        savings=Savings(prompt_count, completion_count, seconds),
    )
    vector = np.frombuffer(payload, dtype="<f4", offset=end).astype(np.float32)
    return entry, vector


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _from_base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars="-_", validate=True)
    except ValueError:
        return None
