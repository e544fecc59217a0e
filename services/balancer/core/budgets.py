"""How much of the traffic may be extra: attempts made again, attempts made twice."""

from services.balancer.core.windows import EventWindow

__all__ = ["RatioBudget"]


class RatioBudget:
    """Allows a share of the requests of late, and a few more.

    At any time `spent <= ratio * requests + burst` holds for what the last `window_seconds` have
    seen, so that a fleet in trouble is not flooded with attempts on top of its requests; the burst
    lets a quiet service retry at all. (Finagle's retry budget, with a burst in place of its floor
    of ten per second, which is more than a fleet of language models serves.)

    Args:
        ratio: Allowed share of the requests, [0, 1]: 0.2 for retries, 0.05 for hedges.
        burst: Allowed beyond it in each window, at least 0: 5 for retries, 1 for hedges.
        window_seconds: How long requests and what was spent are remembered.
    """

    def __init__(self, *, ratio: float, burst: int, window_seconds: float = 10.0) -> None:
        self._ratio = ratio
        self._burst = burst
        self._requests = EventWindow(span_seconds=window_seconds)
        self._spent = EventWindow(span_seconds=window_seconds)

    def note_request(self, now: float) -> None:
        """Notes a request that has come from outside.

        Args:
            now: Seconds of the monotonic clock.
        """
        self._requests = self._requests.add(now)

    def try_spend(self, now: float) -> bool:
        """Takes one extra attempt from the budget where it has one left.

        Args:
            now: Seconds of the monotonic clock.
        """
        if self._spent.count(now) + 1 > self._allowed(now):
            return False
        self._spent = self._spent.add(now)
        return True

    def level(self, now: float) -> float:
        """Returns the share of the budget that is left, [0, 1]; 0 where nothing is allowed.

        Args:
            now: Seconds of the monotonic clock.
        """
        allowed = self._allowed(now)
        if allowed <= 0:
            return 0.0
        # Requests leave the window too, and with them the allowance for what was spent on them.
        return max(0.0, 1.0 - self._spent.count(now) / allowed)

    def _allowed(self, now: float) -> float:
        return self._ratio * self._requests.count(now) + self._burst
