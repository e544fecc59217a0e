"""What a scenario is, and how it is judged."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.bench.balancer.contenders.port import Contender
from tests.bench.balancer.figures import Estimate, estimate, paired_ratio
from tests.bench.balancer.session import Run, Session

__all__ = [
    "PROXIES",
    "Context",
    "Findings",
    "Joinable",
    "Scenario",
    "Verdict",
    "at_least",
    "at_most",
    "best_peer",
    "figures_of",
    "ratio_verdict",
]


PROXIES = ("nginx-tuned", "haproxy-tuned", "nginx", "haproxy")
"""Those that take part in every scenario beside the balancer: tuned, and as they come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What scenarios are given.

    Attributes:
        session: Runs plans.
        contenders: Everyone who takes part, by name.
        seeds: Seeds to repeat with.
        quick: Whether short traces will do.
        say: Tells the person at the console what is going on.
    """

    session: Session
    contenders: Mapping[str, Contender]
    seeds: Sequence[int]
    quick: bool
    say: Callable[[str], None]

    def chosen(self, names: Sequence[str]) -> list[Contender]:
        """Returns those of the named contenders that take part."""
        return [self.contenders[name] for name in names if name in self.contenders]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A goal and what was measured.

    Attributes:
        goal: The goal in words.
        measured: The figure it is judged by.
        limit: What the figure is compared with.
        upper: Whether the limit is an upper one.
        note: What else there is to say.
    """

    goal: str
    measured: Estimate
    limit: float
    upper: bool
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met by the mean; None where it, or its limit, was not measured."""
        mean = self.measured.mean
        if math.isnan(mean) or math.isnan(self.limit):
            return None
        return mean <= self.limit if self.upper else mean >= self.limit

    @property
    def certain(self) -> bool:
        """Whether the whole interval lies on the same side of the limit."""
        mean, half = self.measured.mean, self.measured.half_width
        return abs(mean - self.limit) > half

    @property
    def doubt(self) -> str:
        """Why the verdict is not certain."""
        one_seed = math.isnan(self.measured.half_width)
        return "one value, no interval" if one_seed else "the interval includes the goal"

    def as_json(self) -> dict[str, Any]:
        """Returns the verdict as a JSON object."""
        return {
            "goal": self.goal,
            "mean": self.measured.mean,
            "half_width": self.measured.half_width,
            "limit": self.limit,
            "met": self.met,
            "certain": self.certain,
            "note": self.note,
        }


@dataclass(slots=True)
class Findings:
    """What a scenario has found.

    Attributes:
        runs: Its runs of traces.
        lines: Further figures, by what they are.
        verdicts: Its goals.
    """

    runs: list[Run] = field(default_factory=list)
    lines: dict[str, Estimate] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)


class Scenario(Protocol):
    """A question to the contenders."""

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        ...

    @property
    def title(self) -> str:
        """What it is, in a line."""
        ...

    @property
    def contender_names(self) -> Sequence[str]:
        """Who takes part unless the command line says otherwise."""
        ...

    async def measure(self, context: Context) -> Findings:
        """Measures and judges."""
        ...


class Joinable(Scenario, Protocol):
    """A scenario whose seeds may be shared out to several measurements."""

    def conclude(self, runs: list[Run], context: Context) -> Findings:
        """Judges runs, of one measurement or of several."""
        ...


def figures_of(runs: Sequence[Run], contender: str, figure: Callable[[Run], float]) -> list[float]:
    """Returns a figure of each of a contender's runs, by seed."""
    kept = sorted((run for run in runs if run.contender == contender), key=lambda run: run.seed)
    return [figure(run) for run in kept]


def best_peer(
    runs: Sequence[Run], peers: Sequence[str], figure: Callable[[Run], float]
) -> str | None:
    """Returns the peer with the least mean of a figure; None where no peer took part."""
    means = {
        peer: estimate(values).mean for peer in peers if (values := figures_of(runs, peer, figure))
    }
    return min(means, key=means.__getitem__) if means else None


def ratio_verdict(
    goal: str,
    runs: Sequence[Run],
    ours: str,
    theirs: str | None,
    figure: Callable[[Run], float],
    limit: float,
) -> Verdict:
    """Judges that a figure of ours is at most a share of theirs, by the seeds that both ran."""
    seeds = [{run.seed for run in runs if run.contender == each} for each in (ours, theirs)]
    both = [run for run in runs if run.seed in seeds[0] & seeds[1]] if theirs else []
    own = figures_of(both, ours, figure)
    other = figures_of(both, theirs, figure) if theirs else []
    measured = paired_ratio(own, other) if own and other else estimate([])
    note = f"{ours} {estimate(own)} against {theirs} {estimate(other)}" if theirs else "no peer ran"
    return Verdict(goal=goal, measured=measured, limit=limit, upper=True, note=note)


def at_most(goal: str, values: Sequence[float], limit: float, note: str = "") -> Verdict:
    """Judges that a figure is at most a limit."""
    return Verdict(goal=goal, measured=estimate(values), limit=limit, upper=True, note=note)


def at_least(goal: str, values: Sequence[float], limit: float, note: str = "") -> Verdict:
    """Judges that a figure is at least a limit."""
    return Verdict(goal=goal, measured=estimate(values), limit=limit, upper=False, note=note)
