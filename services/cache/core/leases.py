"""The right to compute a value: its token, and how long it lasts.

A token begins with the time of its grant in microseconds, by the store's clock, in a fixed number
of digits: of two tokens for one value the later one is the greater text, and the value computed
under a lease can be dated by its token alone, whichever replica it is handed to. It may end with
the ids of the span that it was given to, so that those who wait elsewhere can point at it.
"""

import math
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import NamedTuple

__all__ = [
    "FIRST_LEASE_SECONDS",
    "LONGEST_LEASE_SECONDS",
    "SECRET_BYTES",
    "GenerationTimes",
    "Lease",
    "Origin",
    "granted_ms",
    "make_nonce",
    "make_token",
    "origin_of",
]

LONGEST_LEASE_SECONDS = 120.0
FIRST_LEASE_SECONDS = 30.0
"""How long a lease lasts for a model of which nothing is known yet: it may have to be loaded."""

_SHORTEST_DEFAULT_SECONDS = 10.0
_QUANTILE = 0.95
_SAMPLES = 128
_MODELS = 256
SECRET_BYTES = 11
"""So many random bytes nobody can guess; more would not go into the 64 characters of a token."""

_TRACE_ID_BYTES, _SPAN_ID_BYTES = 16, 8
_SECRET_LENGTH = math.ceil(SECRET_BYTES * 4 / 3)
_ORIGIN_LENGTH = (_TRACE_ID_BYTES + _SPAN_ID_BYTES) * 4 // 3
_TOKEN = re.compile(r"(\d{16})-([0-9A-Za-z_-]{1,47})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to compute and to store one value.

    Attributes:
        token: Proves the right.
        seconds: How long it lasts unless it is extended.
        local: Whether it holds in this process only, since the store was away when it was given.
    """

    token: str
    seconds: float
    local: bool = False

    @property
    def granted_ms(self) -> int:
        """When it was given, by the store's clock, milliseconds since the Unix epoch."""
        return granted_ms(self.token) or 0


class Origin(NamedTuple):
    """The span that a lease was given to.

    Attributes:
        trace_id: Its trace.
        span_id: The span in it.
    """

    trace_id: int
    span_id: int


def make_nonce(secret: bytes, origin: Origin | None = None) -> str:
    """Makes the end of a token.

    Args:
        secret: `SECRET_BYTES` random ones.
        origin: Who asks for the lease; None where that is not recorded.
    """
    nonce = _text(secret)
    if origin is not None:
        nonce += _text(
            origin.trace_id.to_bytes(_TRACE_ID_BYTES, "big")
            + origin.span_id.to_bytes(_SPAN_ID_BYTES, "big")
        )
    return nonce


def origin_of(token: str) -> Origin | None:
    """Returns the span that a lease was given to; None where its token does not tell."""
    found = _TOKEN.fullmatch(token)
    if found is None or len(found[2]) != _SECRET_LENGTH + _ORIGIN_LENGTH:
        return None
    ids = urlsafe_b64decode(found[2][_SECRET_LENGTH:])
    trace_id = int.from_bytes(ids[:_TRACE_ID_BYTES], "big")
    span_id = int.from_bytes(ids[_TRACE_ID_BYTES:], "big")
    return Origin(trace_id, span_id) if trace_id and span_id else None


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def make_token(granted_us: int, nonce: str) -> str:
    """Makes a token; the store's script makes them in the same form.

    Args:
        granted_us: When the lease is given, microseconds since the Unix epoch.
        nonce: What nobody can guess, of letters, digits, `-` and `_`.
    """
    return f"{granted_us:016d}-{nonce}"


def granted_ms(token: str) -> int | None:
    """Returns when a token was given, milliseconds since the Unix epoch; None if it is none."""
    found = _TOKEN.fullmatch(token)
    return None if found is None else int(found[1]) // 1000


class GenerationTimes:
    """How long the answers of each model took of late; bounded in models and in samples."""

    def __init__(self) -> None:
        self._seconds: OrderedDict[str, deque[float]] = OrderedDict()

    def note(self, model_digest: str, seconds: float) -> None:
        """Learns of an answer.

        Args:
            model_digest: The model.
            seconds: How long its generation took; 0 where that is not known.
        """
        if seconds <= 0:
            return
        samples = self._seconds.setdefault(model_digest, deque(maxlen=_SAMPLES))
        samples.append(seconds)
        self._seconds.move_to_end(model_digest)
        if len(self._seconds) > _MODELS:
            self._seconds.popitem(last=False)

    def lease_seconds(self, model_digest: str) -> float:
        """Returns how long a lease lasts by default: twice the 95th percentile, 10 s to 120 s."""
        samples = self._seconds.get(model_digest)
        if not samples:
            return FIRST_LEASE_SECONDS
        ordered = sorted(samples)
        nearest_rank = ordered[min(len(ordered) - 1, int(_QUANTILE * len(ordered)))]
        return min(max(2 * nearest_rank, _SHORTEST_DEFAULT_SECONDS), LONGEST_LEASE_SECONDS)
