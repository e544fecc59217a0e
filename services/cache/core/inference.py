"""What callers want of the answers of models, and what their lookups come to."""

from dataclasses import dataclass
from enum import Enum

from services.cache.core.failures import KnownFailure
from services.cache.core.keys import EntryKey
from services.cache.core.leases import Lease
from services.cache.core.model import Control, Hit, Scope
from services.cache.core.semantic.scope import QuestionScope

__all__ = ["Finding", "FlightWish", "Kind", "Query"]

_DEFAULT_WAIT_SECONDS = 30.0


class Kind(Enum):
    """What a lookup came to."""

    LOCAL = "local"
    SHARED = "shared"
    COALESCED = "coalesced"
    NEGATIVE = "negative"
    MISS = "miss"
    WAITED = "waited"
    BYPASSED = "bypassed"


@dataclass(frozen=True, slots=True, kw_only=True)
class FlightWish:
    """How a caller wants to take part in computing an answer once.

    Attributes:
        wait_seconds: How long it waits for another caller's answer.
        lease_seconds: How long its lease is to last; None for as long as answers of the model take.
    """

    wait_seconds: float = _DEFAULT_WAIT_SECONDS
    lease_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What a caller wants.

    Attributes:
        key: The answer's keys.
        scope: What the answer belongs to.
        control: Which answers will do.
        mode: What the caller calls the kind of its request.
        wish: How it takes part in computing the answer; None for a plain lookup.
        question_scope: Why the answer must be computed anew each time; None where it need not.
    """

    key: EntryKey
    scope: Scope
    control: Control
    mode: str = ""
    wish: FlightWish | None = None
    question_scope: QuestionScope | None = None

    @property
    def is_bypassed(self) -> bool:
        """Whether it is not looked for at all."""
        return self.control.bypass or self.question_scope is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a lookup came to.

    Attributes:
        kind: In a word.
        read_ms: When, by the store's clock at the earliest, milliseconds since the Unix epoch.
        degraded: Whether the shared store could not be asked.
        hit: The answer.
        lease: On a miss, the right to compute it; on a hit, the wish that it be computed anew.
        failure: Why there will be no answer for now.
        waited: Whether the caller waited for another one who was computing the answer.
        question_scope: Why it was not looked for; None where it was, or the caller wished so.
    """

    kind: Kind
    read_ms: int
    degraded: bool = False
    hit: Hit | None = None
    lease: Lease | None = None
    failure: KnownFailure | None = None
    waited: bool = False
    question_scope: QuestionScope | None = None
