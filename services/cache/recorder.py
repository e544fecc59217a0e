"""Counts what happens, for GetStats and for Prometheus alike."""

from collections.abc import Mapping, Sequence

from services.cache.core.layers import Layer
from services.cache.core.local_level import LocalLevel
from services.cache.core.model import Level, Lookup, Result, WriteOutcome
from services.cache.core.tallies import LayerTally, Savings
from services.cache.metrics import BACKEND, MODES
from services.common.metrics import Metrics

__all__ = ["Recorder"]

_UNKNOWN_MODE = "unknown"
_NO_COUNTS = (0, 0)


class Recorder:
    """The counts of the process.

    Args:
        metrics: Receives the service's catalogue.
        local: The local level of each layer.
    """

    def __init__(self, metrics: Metrics, local: Mapping[Layer, LocalLevel]) -> None:
        self._metrics = metrics
        self._local = local
        self._reported = dict.fromkeys(Layer, _NO_COUNTS)
        self.tallies: Mapping[Layer, LayerTally] = {layer: LayerTally() for layer in Layer}
        self._create_series()

    def looked_up(
        self, layer: Layer, lookup: Lookup, *, mode: str, duration_seconds: float
    ) -> None:
        """Counts a lookup call.

        Args:
            layer: Layer asked.
            lookup: What it came to.
            mode: What the caller calls the kind of its request.
            duration_seconds: How long it took.
        """
        self.tallies[layer].add_lookup(lookup, duration_seconds)
        known_mode = mode if mode in MODES else _UNKNOWN_MODE
        missing_count = lookup.hits.count(None)
        hits = [hit for hit in lookup.hits if hit is not None]
        if hits:
            self._count("cache_lookups_total", len(hits), layer, known_mode, Result.HIT.value)
        if missing_count:
            absence = Result.ERROR if lookup.degraded else Result.MISS
            self._count("cache_lookups_total", missing_count, layer, known_mode, absence.value)
        for hit in hits:
            self._count("cache_hits_total", 1, layer, hit.level.value)
            self._metrics.observe("cache_hit_age_seconds", hit.age_seconds, layer.value)
        if lookup.rejected_count:
            self._count("cache_rejected_values_total", lookup.rejected_count, layer)
        self._metrics.observe(
            "cache_lookup_duration_seconds", duration_seconds, layer.value, lookup.result.value
        )
        self._report_local(layer)

    def wrote(self, layer: Layer, outcomes: Sequence[WriteOutcome]) -> None:
        """Counts values handed over."""
        self.tallies[layer].add_writes(outcomes)
        for outcome in set(outcomes):
            self._count("cache_writes_total", outcomes.count(outcome), layer, outcome.value)
        self._report_local(layer)

    def saved(self, layer: Layer, savings: Savings) -> None:
        """Counts what a hit has saved."""
        self.tallies[layer].add_savings(savings)
        self._metrics.count("cache_saved_tokens_total", "prompt", amount=savings.prompt_token_count)
        self._metrics.count(
            "cache_saved_tokens_total", "completion", amount=savings.completion_token_count
        )
        self._metrics.count("cache_saved_seconds_total", amount=savings.seconds)

    def store_failed(self) -> None:
        """Counts a failed call to the shared store."""
        self._metrics.count("cache_backend_failures_total", BACKEND)

    def store_available(self, *, available: bool) -> None:
        """Shows whether the shared store is in use."""
        self._metrics.set_gauge("cache_backend_up", int(available), BACKEND)
        self._metrics.set_gauge("cache_degraded", int(not available))

    def _count(self, name: str, amount: int, layer: Layer, *labels: str) -> None:
        self._metrics.count(name, layer.value, *labels, amount=amount)

    def _report_local(self, layer: Layer) -> None:
        local = self._local[layer]
        counts = (local.eviction_count, local.expiry_count)
        evicted, expired = (
            now - before for now, before in zip(counts, self._reported[layer], strict=True)
        )
        self._reported[layer] = counts
        if evicted:
            self._count("cache_evictions_total", evicted, layer, "capacity")
        if expired:
            self._count("cache_evictions_total", expired, layer, "expired")
        self._metrics.set_gauge("cache_entries", local.entry_count, layer.value)
        self._metrics.set_gauge("cache_memory_bytes", local.size_bytes, layer.value)

    def _create_series(self) -> None:
        """Makes every counter exist from the start: no rate can be taken of what appears at 1."""
        for layer in Layer:
            for result in Result:
                for mode in MODES if layer is Layer.INFERENCE else (_UNKNOWN_MODE,):
                    self._count("cache_lookups_total", 0, layer, mode, result.value)
            for level in Level:
                self._count("cache_hits_total", 0, layer, level.value)
            for outcome in WriteOutcome:
                self._count("cache_writes_total", 0, layer, outcome.value)
            for reason in ("capacity", "expired"):
                self._count("cache_evictions_total", 0, layer, reason)
            self._count("cache_rejected_values_total", 0, layer)
            self._metrics.set_gauge(
                "cache_memory_limit_bytes", self._local[layer].limit_bytes, layer.value
            )
            self._report_local(layer)
        for kind in ("prompt", "completion"):
            self._metrics.count("cache_saved_tokens_total", kind, amount=0)
        self._metrics.count("cache_backend_failures_total", BACKEND, amount=0)
