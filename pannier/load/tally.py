"""Counts what becomes of questions: in total, by mode, by tenant, and over the last seconds.

All times run from the instant a question was due, not from when it was sent, so that a service that
makes the generator late is not measured as if nobody had waited.
"""

import math
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from pannier.load.outcome import CANCELLED, Outcome
from pannier.load.percentiles import Distribution

__all__ = ["OTHERS", "RECENT_SECONDS", "Figures", "Tally"]

RECENT_SECONDS = 10
"""What counts as recent."""

OTHERS = "(others)"
"""Stands for those too many to be told apart."""

_NAME_LIMIT = 50
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


@dataclass(slots=True)
class Figures:
    """What became of some questions.

    Attributes:
        offered: Those that were due.
        sent: Those of them that were sent.
        refused: Those that were not, since too many were under way.
        answered: Those that have their whole answer.
        failed: Those that ended otherwise.
        cancelled: Those that were broken off because the run ended; they have not failed.
        cached: Answers that came from the cache.
        degraded: Answers for which something could not be done as it should have been.
        first_text: From when a question was due until the first text of its answer.
        whole: From when it was due until its whole answer.
        late: From when it was due until it was sent.
    """

    offered: int = 0
    sent: int = 0
    refused: int = 0
    answered: int = 0
    failed: int = 0
    cancelled: int = 0
    cached: int = 0
    degraded: int = 0
    first_text: Distribution = field(default_factory=Distribution)
    whole: Distribution = field(default_factory=Distribution)
    late: Distribution = field(default_factory=Distribution)

    @property
    def ended(self) -> int:
        """Questions that were answered or have failed."""
        return self.answered + self.failed

    @property
    def error_ratio(self) -> float | None:
        """Share of those ended that have failed; None before the first."""
        return self.failed / self.ended if self.ended else None

    @property
    def cached_ratio(self) -> float | None:
        """Share of the answers that came from the cache; None before the first."""
        return self.cached / self.answered if self.answered else None

    @property
    def degraded_ratio(self) -> float | None:
        """Share of the answers that were degraded; None before the first."""
        return self.degraded / self.answered if self.answered else None

    @property
    def refused_ratio(self) -> float | None:
        """Share of those due that were not sent; None before the first."""
        return self.refused / self.offered if self.offered else None

    def merge(self, other: "Figures") -> None:
        """Takes in others."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in _TIMES:
            getattr(self, name).merge(getattr(other, name))

    def document(self) -> dict[str, Any]:
        """Returns all figures as plain data, histograms included."""
        ratios = ("error_ratio", "cached_ratio", "degraded_ratio", "refused_ratio")
        return {
            **{name: getattr(self, name) for name in (*_COUNTS, *ratios)},
            **{f"{name}_seconds": _times(getattr(self, name)) for name in _TIMES},
        }


_COUNTS = ("offered", "sent", "refused", "answered", "failed", "cancelled", "cached", "degraded")
_TIMES = ("first_text", "whole", "late")


def _times(times: Distribution) -> dict[str, Any]:
    return {
        "count": times.count,
        "mean": times.mean_seconds,
        "minimum": times.minimum_seconds if times.count else None,
        "maximum": times.maximum_seconds if times.count else None,
        **{name: times.quantile(share) for name, share in _QUANTILES.items()},
        "histogram": [{"upper_seconds": upper, "count": count} for upper, count in times.buckets()],
    }


class Tally:
    """Counts what becomes of questions.

    Attributes:
        total: All of them.
        modes: By mode.
        tenants: By tenant.
        errors: Failures by reason.
        kinds: Questions sent by kind: new, repeat, paraphrase.
        in_flight: Questions sent that have not ended.
        most_in_flight: The most there were at once.
        last_ended: When the last of them ended, monotonic seconds; minus infinity before the first.
    """

    def __init__(self) -> None:
        self.total = Figures()
        self.modes: dict[str, Figures] = {}
        self.tenants: dict[str, Figures] = {}
        self.errors: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.in_flight = 0
        self.most_in_flight = 0
        self.last_ended = -math.inf
        self._recent: deque[tuple[int, Figures]] = deque(maxlen=RECENT_SECONDS + 1)

    def note_sent(self, *, mode: str, tenant: str, kind: str, due: float, now: float) -> None:
        """Counts a question that was sent; times are monotonic seconds."""
        self.kinds[kind] += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        for figures in self._concerned(mode, tenant, now):
            figures.offered += 1
            figures.sent += 1
            figures.late.add(now - due)

    def note_refused(self, *, mode: str, tenant: str, now: float) -> None:
        """Counts a question that was due while too many were under way."""
        for figures in self._concerned(mode, tenant, now):
            figures.offered += 1
            figures.refused += 1

    def note_ended(
        self, *, mode: str, tenant: str, due: float, now: float, outcome: Outcome
    ) -> None:
        """Counts the end of a question that was sent."""
        self.in_flight -= 1
        self.last_ended = now
        if outcome.error and outcome.error != CANCELLED:
            self.errors[_within(self.errors, outcome.error)] += 1
        for figures in self._concerned(mode, tenant, now):
            if outcome.first_text_after is not None:
                figures.first_text.add(outcome.first_text_after - due)
            if outcome.error == CANCELLED:
                figures.cancelled += 1
            elif outcome.error:
                figures.failed += 1
            else:
                figures.answered += 1
                figures.cached += outcome.cached
                figures.degraded += outcome.degraded
                figures.whole.add(now - due)

    def recent(self, now: float) -> Figures:
        """Returns the figures of the last `RECENT_SECONDS` whole seconds before now."""
        merged = Figures()
        for second, figures in self._recent:
            if int(now) - RECENT_SECONDS <= second < int(now):
                merged.merge(figures)
        return merged

    def document(self) -> dict[str, Any]:
        """Returns all figures as plain data."""
        return {
            "total": self.total.document(),
            "modes": {name: each.document() for name, each in sorted(self.modes.items())},
            "tenants": {name: each.document() for name, each in sorted(self.tenants.items())},
            "errors": dict(self.errors.most_common()),
            "kinds": dict(sorted(self.kinds.items())),
            "most_in_flight": self.most_in_flight,
        }

    def _concerned(self, mode: str, tenant: str, now: float) -> tuple[Figures, ...]:
        second = int(now)
        if not self._recent or self._recent[-1][0] < second:
            self._recent.append((second, Figures()))
        return (
            self.total,
            self.modes.setdefault(mode, Figures()),
            self.tenants.setdefault(_within(self.tenants, tenant), Figures()),
            self._recent[-1][1],
        )


def _within(known: "dict[str, Any]", name: str) -> str:
    """Returns a name under which something is counted: its own, while there are not too many."""
    return name if name in known or len(known) < _NAME_LIMIT else OTHERS
