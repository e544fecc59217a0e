"""What is known of a backend, and the rules by which that decides whether it takes requests."""

from dataclasses import dataclass, field, replace
from enum import Enum
from math import inf

from services.balancer.core.decay import DecayedMean
from services.balancer.core.windows import EventWindow

__all__ = ["RULES", "Rules", "Signal", "Standing", "State"]


class State(Enum):
    """States of a backend; the values serve as labels of metrics."""

    UNKNOWN = "unknown"
    """Not reached yet; takes no requests."""
    CLOSED = "closed"
    """Takes requests, as a closed circuit does."""
    EJECTED = "ejected"
    """Takes no requests until its time is over and a check succeeds."""
    HALF_OPEN = "half_open"
    """Takes a canary only."""
    RETURNING = "returning"
    """Takes requests at a surcharge that fades."""
    DRAINED = "drained"
    """Takes no requests until resumed, whatever its health."""


class Signal(Enum):
    """What was learned of a backend, or was told to it."""

    REQUEST_SUCCEEDED = "request_succeeded"
    REQUEST_FAILED = "request_failed"
    REQUEST_TIMED_OUT = "request_timed_out"
    """No first token, or no reply, in time."""
    REQUEST_CONNECTION_LOST = "request_connection_lost"
    """Not connected, or cut off before the first byte."""
    BUSY = "busy"
    """Its own queue is full."""
    STALLED = "stalled"
    """No further token in time."""
    CHECK_SUCCEEDED = "check_succeeded"
    CHECK_FAILED = "check_failed"
    CHECK_CONNECTION_LOST = "check_connection_lost"
    CANARY_SUCCEEDED = "canary_succeeded"
    CANARY_FAILED = "canary_failed"
    CANARY_SKIPPED = "canary_skipped"
    """It has no model loaded to try: the check before has to do."""
    DRAINED = "drained"
    RESUMED = "resumed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """When a backend goes out and how it comes back.

    Attributes:
        failure_limit: Failed requests in a row that take it out.
        window_seconds: What the rules on shares and repetitions look back on.
        least_attempt_count: Fewest requests of the window that a share can be told from.
        lowest_success_ratio: Share of successes in the window below which it goes out, [0, 1].
        missed_check_limit: Failed checks in a row that take it out.
        busy_limit: From which busy reply of the window on these count as failures.
        ejection_seconds: How long it stays out the first time; each further time doubles it.
        longest_ejection_seconds: The most that doubling leads to.
        ejection_jitter_ratio: By how much that varies either way, [0, 1].
        forgiveness_seconds: Time without failure that halves the number of ejections.
        probe_seconds: Pause until the first check of a suspect; each further check doubles it.
        lost_probe_seconds: Longest pause between checks of one that could not be connected to:
            that costs next to nothing, and it is to be back soon after it was started again.
        slow_start_seconds: How long the surcharge of a returning backend takes to fade.
        slow_start_surcharge_seconds: With what it begins, times the number of ejections.
        longest_surcharge_seconds: The most that multiplication leads to.
        busy_surcharge_seconds: Surcharge after a busy reply.
        busy_fade_seconds: After how long a third of that is left.
        canary_interval_seconds: Time without a success after which it is tried.
    """

    failure_limit: int = 3
    window_seconds: float = 30.0
    least_attempt_count: int = 5
    lowest_success_ratio: float = 0.8
    missed_check_limit: int = 2
    busy_limit: int = 3
    ejection_seconds: float = 10.0
    longest_ejection_seconds: float = 300.0
    ejection_jitter_ratio: float = 0.2
    forgiveness_seconds: float = 600.0
    probe_seconds: float = 1.0
    lost_probe_seconds: float = 2.0
    slow_start_seconds: float = 30.0
    slow_start_surcharge_seconds: float = 5.0
    longest_surcharge_seconds: float = 30.0
    busy_surcharge_seconds: float = 5.0
    busy_fade_seconds: float = 10.0
    canary_interval_seconds: float = 60.0

    @classmethod
    def lasting(cls, *, ejection_seconds: float, slow_start_seconds: float) -> "Rules":
        """Returns rules with other times; what depends on them keeps its proportion.

        Args:
            ejection_seconds: How long a backend stays out the first time.
            slow_start_seconds: How long the surcharge of a returning backend takes to fade.
        """
        usual = cls()
        out = ejection_seconds / usual.ejection_seconds
        back = slow_start_seconds / usual.slow_start_seconds
        return replace(
            usual,
            ejection_seconds=ejection_seconds,
            longest_ejection_seconds=usual.longest_ejection_seconds * out,
            busy_surcharge_seconds=usual.busy_surcharge_seconds * out,
            busy_fade_seconds=usual.busy_fade_seconds * out,
            slow_start_seconds=slow_start_seconds,
            slow_start_surcharge_seconds=usual.slow_start_surcharge_seconds * back,
            longest_surcharge_seconds=usual.longest_surcharge_seconds * back,
        )


RULES = Rules()
_EMPTY = EventWindow(span_seconds=RULES.window_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is known of one backend; times are seconds of the monotonic clock.

    Attributes:
        health: Its state but for draining.
        drained: Whether it is drained.
        since: When it last began, or ceased, to take requests, draining apart.
        ejected_until: Until when it stays out, unless its server was down.
        down: Whether its server was down: could not be connected to by a check since it went out,
            or, the first time, by a request. Its first good check then is enough.
        ejection_count: How often it went out, less what was forgiven.
        failure_streak: Failed requests since the last success.
        missed_check_count: Failed checks since the last success.
        last_failure: What the last failure said; empty after a success.
        failed_at: When that was.
        tried_at: When a request last succeeded or a canary ended.
        doubted: Whether it is to be tried by a canary although it takes requests.
        probed_at: From when on the pause until the next check counts.
        probe_level: How long that pause is: 0 for none, 1 for the first, each more doubles it.
        attempts: Requests since it last came in.
        failures: Those of them that failed.
        busies: Busy replies.
        busy_at: When the last of these came.
        failure_mean: 1 for each failed attempt, 0 for each other.
    """

    health: State = State.UNKNOWN
    drained: bool = False
    since: float = -inf
    ejected_until: float = -inf
    down: bool = False
    ejection_count: int = 0
    failure_streak: int = 0
    missed_check_count: int = 0
    last_failure: str = ""
    failed_at: float = -inf
    tried_at: float = -inf
    doubted: bool = False
    probed_at: float = -inf
    probe_level: int = 0
    attempts: EventWindow = _EMPTY
    failures: EventWindow = _EMPTY
    busies: EventWindow = _EMPTY
    busy_at: float = -inf
    failure_mean: DecayedMean = field(default_factory=DecayedMean)

    @property
    def state(self) -> State:
        """Its state as others see it."""
        return State.DRAINED if self.drained else self.health

    @property
    def consecutive_failure_count(self) -> int:
        """Failures since the last success, of requests and of checks."""
        return self.failure_streak + self.missed_check_count

    @property
    def suspected(self) -> bool:
        """Whether something has failed that no success has made up for."""
        return self.doubted or self.consecutive_failure_count > 0
