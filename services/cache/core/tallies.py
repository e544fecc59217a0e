"""Counts of one layer since the process started; what GetStats reports."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ddsketch import LogCollapsingLowestDenseDDSketch

from services.cache.core.model import Level, Lookup, WriteOutcome

__all__ = ["LayerTally", "Savings"]

# Quantiles within 1 % of the true ones; the bins bound the memory of each sketch to 16 KiB.
_RELATIVE_ACCURACY = 0.01
_BIN_LIMIT = 2048

_NOT_TAKEN = (WriteOutcome.DROPPED, WriteOutcome.REFUSED)


@dataclass(frozen=True, slots=True)
class Savings:
    """What one hit saves, as counted when the value was computed.

    Attributes:
        prompt_token_count: Tokens of the prompt.
        completion_token_count: Tokens generated.
        seconds: Time of the generation.
    """

    prompt_token_count: int
    completion_token_count: int
    seconds: float


def _new_sketch() -> LogCollapsingLowestDenseDDSketch:
    return LogCollapsingLowestDenseDDSketch(_RELATIVE_ACCURACY, _BIN_LIMIT)


@dataclass(slots=True)
class LayerTally:
    """Running counts of a layer.

    Attributes:
        lookup_count: Items asked for.
        local_hit_count: Items answered from the local level.
        shared_hit_count: Items answered from the shared store.
        miss_count: Items not found, those of `degraded_miss_count` included.
        degraded_miss_count: Items not found while the shared store could not be asked.
        rejected_value_count: Values found that failed their check.
        stored_count: Items that the shared store has taken.
        dropped_store_count: Items that the shared store could not take.
        saved_prompt_token_count: Prompt tokens that hits have saved.
        saved_completion_token_count: Generated tokens that hits have saved.
        saved_seconds: Generation time that hits have saved.
    """

    lookup_count: int = 0
    local_hit_count: int = 0
    shared_hit_count: int = 0
    miss_count: int = 0
    degraded_miss_count: int = 0
    rejected_value_count: int = 0
    stored_count: int = 0
    dropped_store_count: int = 0
    saved_prompt_token_count: int = 0
    saved_completion_token_count: int = 0
    saved_seconds: float = 0.0
    _durations: LogCollapsingLowestDenseDDSketch = field(default_factory=_new_sketch, repr=False)

    def add_lookup(self, lookup: Lookup, duration_seconds: float) -> None:
        """Counts a lookup call, per item, and its time, per call."""
        levels = [hit.level for hit in lookup.hits if hit is not None]
        local_count = levels.count(Level.LOCAL)
        missing_count = len(lookup.hits) - len(levels)
        self.lookup_count += len(lookup.hits)
        self.local_hit_count += local_count
        self.shared_hit_count += len(levels) - local_count
        self.miss_count += missing_count
        if lookup.degraded:
            self.degraded_miss_count += missing_count
        self.rejected_value_count += lookup.rejected_count
        self._durations.add(duration_seconds)

    def add_writes(self, outcomes: Sequence[WriteOutcome]) -> None:
        """Counts values handed over."""
        self.stored_count += outcomes.count(WriteOutcome.STORED)
        self.dropped_store_count += sum(outcomes.count(each) for each in _NOT_TAKEN)

    def add_savings(self, savings: Savings) -> None:
        """Counts what a hit has saved."""
        self.saved_prompt_token_count += savings.prompt_token_count
        self.saved_completion_token_count += savings.completion_token_count
        self.saved_seconds += savings.seconds

    @property
    def hit_ratio(self) -> float:
        """Hits over lookups, [0, 1]; 0 before the first lookup."""
        if self.lookup_count == 0:
            return 0.0
        return (self.local_hit_count + self.shared_hit_count) / self.lookup_count

    def duration_quantile(self, quantile: float) -> float | None:
        """Returns a quantile of the time of lookup calls in seconds; None before the first.

        Args:
            quantile: For example 0.99.
        """
        value: float | None = self._durations.get_quantile_value(quantile)
        return value
