"""Metrics as declarations: what a service measures is data.

Each service lists its metrics once, with unit, help, labels and buckets. The sink, the documents
and the tests of the dashboards all read the same list.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import product
from types import MappingProxyType

__all__ = [
    "LATENCY_BUCKETS_SECONDS",
    "OVERFLOW",
    "Label",
    "Metric",
    "MetricKind",
    "one_of",
    "up_to",
]

# Contains the targets 0.1, 0.13 and 0.2 s and reaches past the longest answer.
LATENCY_BUCKETS_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.13, 0.2, 0.35, 0.5, 0.75, 1.0, 2.0, 3.5,
    5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0,
)  # fmt: skip

OVERFLOW = "_other"
"""Stands for the values of a label that it has no room for."""


class MetricKind(Enum):
    """What a metric does over time."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Label:
    """What bounds the values of a label.

    Attributes:
        values: All of them, where they are known beforehand; empty where they come up on the way.
        notes: What single values mean, where that does not go without saying.
        limit: Most values that come up on the way; whatever comes later counts as `OVERFLOW`.
        meaning: What the values are, where they come up on the way.
    """

    values: tuple[str, ...] = ()
    notes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    limit: int = 0
    meaning: str = ""

    def describe(self) -> str:
        """Says in words which values there are."""
        if not self.values:
            return f"{self.meaning}; at most {self.limit}" if self.limit > 1 else self.meaning
        return ", ".join(
            f"{value} ({self.notes[value]})" if value in self.notes else value
            for value in self.values
        )


def one_of(*values: str, **notes: str) -> Label:
    """Declares a label whose values are all known; their series exist from the start.

    Args:
        values: The values.
        notes: What single values mean, by value.

    Raises:
        ValueError: There are none, one stands twice, or a note is about none of them.
    """
    if not values or len(set(values)) != len(values) or not set(notes) <= set(values):
        raise ValueError(f"not a set of values with notes on them: {values}, {notes}")
    return Label(values, MappingProxyType(dict(notes)))


def up_to(limit: int, meaning: str) -> Label:
    """Declares a label whose values come up on the way.

    Args:
        limit: Most of them, 1 or more.
        meaning: What they are.

    Raises:
        ValueError: The limit is below 1.
    """
    if limit < 1:
        raise ValueError("a label needs room for a value")
    return Label(limit=limit, meaning=meaning)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family.

    Attributes:
        name: Full name as Prometheus shows it; counters end in `_total`.
        kind: What it does over time.
        help: What it counts or measures, one sentence.
        labels: Label names with what bounds their values.
        buckets: Upper edges of a histogram.
        has_exemplars: Whether observations of a histogram point at their traces.
    """

    name: str
    kind: MetricKind
    help: str
    labels: Mapping[str, Label]
    buckets: Sequence[float] = LATENCY_BUCKETS_SECONDS
    has_exemplars: bool = False

    def known_series(self, **given: str) -> Iterator[tuple[str, ...]]:
        """Yields the label values of every series that is known beforehand.

        Args:
            given: Values of labels that come up on the way.

        Returns:
            None at all where a label that comes up on the way is not given.
        """
        choices = [
            (given[name],) if name in given else label.values for name, label in self.labels.items()
        ]
        return product(*choices)
