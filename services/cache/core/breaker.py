"""Decides from the calls to a store how far it is used.

NORMAL: everything goes through. SLOW: the store answers, but late; reads go on, writes are dropped,
which takes load from it. OPEN: no call goes through, so that callers pay no time-out; after a pause
one probe is sent, and each failed probe doubles the pause, up to a limit. RECOVERING: the probe has
succeeded; what this process knows of the store is being brought up to date, and only then do
callers' requests go through again.

Probes are sent in the background, never on behalf of a caller.
"""

from dataclasses import dataclass
from enum import Enum

from services.cache.core.call_window import CallWindow

__all__ = ["Breaker", "BreakerPolicy", "Phase"]


class Phase(Enum):
    """How far a store is used."""

    NORMAL = "normal"
    SLOW = "slow"
    OPEN = "open"
    RECOVERING = "recovering"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """When a store is used how far.

    Attributes:
        failure_threshold: Failures in a row that open the breaker, at least 1.
        failure_ratio: Share of failed calls above which it opens, 0 to 1.
        window_seconds: What the shares are taken of: the calls of so many last seconds.
        window_call_count: Fewer calls than these say nothing about shares.
        slow_seconds: A call that takes longer is slow.
        slow_ratio: Share of slow calls above which the store is slow: 0.05 makes it a bound on the
            95th percentile.
        slow_second_count: Seconds of the window that must have had slow calls; one hiccup of this
            process is no slow store.
        shortest_pause_seconds: Time until the first probe.
        longest_pause_seconds: Limit of the doubling.
    """

    failure_threshold: int = 5
    failure_ratio: float = 0.5
    window_seconds: int = 10
    window_call_count: int = 20
    slow_seconds: float = 0.05
    slow_ratio: float = 0.05
    slow_second_count: int = 5
    shortest_pause_seconds: float = 1.0
    longest_pause_seconds: float = 5.0


class Breaker:
    """The state of a breaker; times are seconds on one monotonic clock.

    Args:
        policy: Its rules.

    Attributes:
        policy: Its rules.
        phase: How far the store is used.
        failure_count: Failures in a row.
        pause_seconds: Length of the running pause; 0 while calls go through.
        retry_at: When the next probe is due; 0 while calls go through.
    """

    def __init__(self, policy: BreakerPolicy) -> None:
        self.policy = policy
        self.phase = Phase.NORMAL
        self.failure_count = 0
        self.pause_seconds = 0.0
        self.retry_at = 0.0
        self._window = CallWindow(policy.window_seconds)

    @property
    def admits_calls(self) -> bool:
        """Whether callers' requests may go through."""
        return self.phase in (Phase.NORMAL, Phase.SLOW)

    def succeeded(self, now: float, duration_seconds: float | None) -> None:
        """Counts a call that succeeded; one that ends while no calls go through is too old.

        Args:
            now: When it ended.
            duration_seconds: How long it took; None where that says nothing about the store.
        """
        if not self.admits_calls:
            return
        self.failure_count = 0
        if duration_seconds is not None:
            slow = duration_seconds > self.policy.slow_seconds
            self._window.add(now, failed=False, slow=slow)
        self._judge(now)

    def failed(self, now: float, duration_seconds: float) -> None:
        """Counts a call that failed; one that ends while no calls go through is too old.

        Args:
            now: When it ended.
            duration_seconds: How long it took.
        """
        if not self.admits_calls:
            return
        self.failure_count += 1
        slow = duration_seconds > self.policy.slow_seconds
        self._window.add(now, failed=True, slow=slow)
        self._judge(now)

    def probe_due(self, now: float) -> bool:
        """Returns whether it is time to find out whether the store is back."""
        return self.phase is Phase.OPEN and now >= self.retry_at

    def probe_succeeded(self) -> None:
        """Notes that the store answers again."""
        if self.phase is Phase.OPEN:
            self.phase = Phase.RECOVERING

    def probe_failed(self, now: float) -> None:
        """Notes that the store is still away, or went away again while recovering."""
        if not self.admits_calls:
            self._open(now, min(2 * self.pause_seconds, self.policy.longest_pause_seconds))

    def recovered(self) -> None:
        """Lets calls through again, with a clean record."""
        if self.phase is Phase.RECOVERING:
            self.phase = Phase.NORMAL
            self.failure_count = 0
            self.pause_seconds = self.retry_at = 0.0
            self._window.clear()

    def _judge(self, now: float) -> None:
        policy = self.policy
        seen = self._window.counts(now)
        enough = seen.call_count >= policy.window_call_count
        if self.failure_count >= policy.failure_threshold or (
            enough and seen.failure_count > policy.failure_ratio * seen.call_count
        ):
            self._open(now, policy.shortest_pause_seconds)
            return
        late = seen.slow_count > policy.slow_ratio * seen.call_count
        lasting = enough and seen.slow_second_count >= policy.slow_second_count
        # What has made it slow need not go on for it to stay slow: few calls are made meanwhile.
        self.phase = Phase.SLOW if late and (lasting or self.phase is Phase.SLOW) else Phase.NORMAL

    def _open(self, now: float, pause_seconds: float) -> None:
        self.phase = Phase.OPEN
        self.failure_count = 0
        self.pause_seconds = pause_seconds
        self.retry_at = now + pause_seconds
