"""What first tokens tell of the slots of a model: whether it still answers as many at once.

Where one slot of several is lost, nobody is silent for long: a request waits inside the server
until another of the model has ended, and then is answered. No server shows that; but a request
that was given a slot should never wait for another's end.
"""

import math
from dataclasses import dataclass

from services.balancer.core.stalls import LIMITS

__all__ = ["Start", "Starts"]

# Chance has a long prompt read up just after another request has ended, but not again and again.
_SUSPICIOUS_COUNT = 4
_MEMORY_SECONDS = 300.0
_LATE_RATIO = 2.0
_LATE_SECONDS = 0.2
# Between two suspicions of a model; what is suspected gets no requests for a moment.
_FIRST_QUIET_SECONDS = 30.0
_LONGEST_QUIET_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The first token of a request.

    Attributes:
        slot_count: Requests that the model is given at a time.
        streaming_count: Requests of the model there that have their first token, itself included.
        after_an_end: Whether another of the model has ended since it was sent.
        seconds: How long it took.
        predicted_seconds: How long it was predicted to take.
        limit_seconds: How long it might have taken.
    """

    slot_count: int
    streaming_count: int
    after_an_end: bool
    seconds: float
    predicted_seconds: float
    limit_seconds: float

    @property
    def fills_slots(self) -> bool:
        """Whether it shows that all slots answer."""
        return self.streaming_count >= self.slot_count

    @property
    def waited(self) -> bool:
        """Whether it looks as if it had had to wait for the end of another."""
        late = self.seconds > _LATE_RATIO * self.predicted_seconds + _LATE_SECONDS
        return self.after_an_end and late and not self.fills_slots

    @property
    def waited_long(self) -> bool:
        """Whether it did so for as long as is suspicious by itself."""
        return self.waited and self.seconds > LIMITS.suspect_ratio * self.limit_seconds


@dataclass(slots=True)
class _Record:
    late_count: int = 0
    late_at: float = -math.inf
    quiet_seconds: float = _FIRST_QUIET_SECONDS
    quiet_until: float = 0.0


class Starts:
    """Which models look as if they had lost one slot of several."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, str], _Record] = {}

    def note(self, backend_id: str, model: str, start: Start, now: float) -> bool:
        """Notes the first token of a request, and tells whether a lost slot is to be suspected.

        Args:
            backend_id: Where.
            model: Placement key.
            start: The first token.
            now: Seconds of the monotonic clock.
        """
        if start.fills_slots:
            self._records.pop((backend_id, model), None)
            return False
        if not start.waited:
            return False
        record = self._records.setdefault((backend_id, model), _Record())
        recent = now - record.late_at < _MEMORY_SECONDS
        record.late_count = record.late_count + 1 if recent else 1
        record.late_at = now
        enough = start.waited_long or record.late_count >= _SUSPICIOUS_COUNT
        if not enough or now < record.quiet_until:
            return False
        record.late_count = 0
        record.quiet_until = now + record.quiet_seconds
        record.quiet_seconds = min(2.0 * record.quiet_seconds, _LONGEST_QUIET_SECONDS)
        return True
