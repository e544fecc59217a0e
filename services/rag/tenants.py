"""The tenants that metrics tell apart, and how many are active."""

from services.common.clock import Clock
from services.common.metrics import OVERFLOW, Metrics

__all__ = ["Tenants"]

_ACTIVE_SECONDS = 300.0
# Beyond so many the gauge stands still, for the sake of memory.
_MOST_SEEN = 100_000


class Tenants:
    """Knows tenants by what they ask.

    Args:
        metrics: Shows them.
        limit: Tenants that are told apart: the first ones; all others count as one.
        clock: Tells when they were seen.
    """

    def __init__(self, metrics: Metrics, *, limit: int, clock: Clock) -> None:
        self._metrics = metrics
        self._limit = limit
        self._clock = clock
        self._named: set[str] = set()
        # The one that was seen last stands last.
        self._seen: dict[str, float] = {}
        self._show()
        metrics.before_scrape(self._show)

    def see(self, tenant_id: str) -> None:
        """Notes that a tenant asks something."""
        now = self._clock.monotonic()
        seen = self._seen
        seen.pop(tenant_id, None)
        seen[tenant_id] = now
        while now - seen[oldest := next(iter(seen))] > _ACTIVE_SECONDS or len(seen) > _MOST_SEEN:
            del seen[oldest]

    def label(self, tenant_id: str) -> str:
        """Returns the name that a tenant is counted under."""
        if tenant_id not in self._named:
            if len(self._named) >= self._limit:
                self._metrics.count("telemetry_label_overflow_total", "tenant")
                return OVERFLOW
            self._named.add(tenant_id)
            self._metrics.create_series("tenant", tenant_id)
        return tenant_id

    def _show(self) -> None:
        # Called in another thread: the copy is made in one step.
        now = self._clock.monotonic()
        active = sum(now - each <= _ACTIVE_SECONDS for each in list(self._seen.values()))
        self._metrics.set_gauge("rag_active_tenants", active)
