"""Decides from successes and failures whether a store is asked at all.

Closed: calls go through. After `failure_threshold` failures in a row it opens: no call goes
through, so that callers pay no time-out. After a pause one probe is sent (half-open); its success
closes the breaker, its failure opens it again for twice as long, up to a limit.

Probes are sent in the background, never on behalf of a caller; so half-open admits no calls.
"""

from dataclasses import dataclass, replace
from enum import Enum

__all__ = ["Breaker", "BreakerPolicy", "Phase"]


class Phase(Enum):
    """Where a breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """When a breaker opens and how long it stays open.

    Attributes:
        failure_threshold: Failures in a row that open it, at least 1.
        shortest_pause_seconds: Time until the first probe.
        longest_pause_seconds: Limit of the doubling.
    """

    failure_threshold: int = 5
    shortest_pause_seconds: float = 1.0
    longest_pause_seconds: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """The state of a breaker; every event returns the next state.

    Attributes:
        policy: Its rules.
        phase: Where it stands.
        failure_count: Failures in a row while closed.
        pause_seconds: Length of the running pause; 0 while closed.
        retry_at: When the next probe is due, on the clock of the events; 0 while closed.
    """

    policy: BreakerPolicy
    phase: Phase = Phase.CLOSED
    failure_count: int = 0
    pause_seconds: float = 0.0
    retry_at: float = 0.0

    @property
    def admits_calls(self) -> bool:
        """Whether callers' requests may go through."""
        return self.phase is Phase.CLOSED

    def succeeded(self) -> "Breaker":
        """Returns the state after a success; one that comes while open is too old to count."""
        if self.phase is Phase.OPEN or self == Breaker(policy=self.policy):
            return self
        return Breaker(policy=self.policy)

    def failed(self, now: float) -> "Breaker":
        """Returns the state after a failure.

        Args:
            now: Seconds on a monotonic clock.
        """
        if self.phase is Phase.OPEN:
            return self
        if self.phase is Phase.HALF_OPEN:
            longer = min(2 * self.pause_seconds, self.policy.longest_pause_seconds)
            return self._opened(now, longer)
        if self.failure_count + 1 >= self.policy.failure_threshold:
            return self._opened(now, self.policy.shortest_pause_seconds)
        return replace(self, failure_count=self.failure_count + 1)

    def probing(self, now: float) -> "Breaker":
        """Returns the state in which a probe is under way, or the same state where none is due."""
        if self.phase is Phase.OPEN and now >= self.retry_at:
            return replace(self, phase=Phase.HALF_OPEN)
        return self

    def _opened(self, now: float, pause_seconds: float) -> "Breaker":
        return Breaker(
            policy=self.policy,
            phase=Phase.OPEN,
            pause_seconds=pause_seconds,
            retry_at=now + pause_seconds,
        )
