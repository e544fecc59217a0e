"""Work in seconds: what is outstanding at a backend, and how fast it has proved to be."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from services.balancer.core.decay import DecayedMean

__all__ = ["Speed", "UnitCost", "Work", "load_seconds", "unit_costs"]

# What to expect of a fleet that has not served anything yet.
_PROMPT_SECONDS = 0.3
_TOKEN_SECONDS = 0.03
_OUTPUT_TOKEN_COUNT = 128.0
_TEXT_SECONDS = 0.02
_SHORTEST_SECONDS = 1e-6
# That a backend is slower than the others is half believed after eight samples. Were it believed
# at once, one slow reply (a first connection, a disk that had to wake) would keep away the very
# requests that could show otherwise.
_SLOWNESS_PROOF_WEIGHT = 8.0
# A backend that always fails is not infinitely slow: it may have been repaired.
_HIGHEST_FAILURE_RATIO = 0.95
# One failure says little: it takes two among few successes to make a difference.
_FAILURE_PRIOR_WEIGHT = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """An amount of work; fractions occur in averages.

    Attributes:
        generation_count: Answers to generate.
        text_count: Texts to embed.
    """

    generation_count: float = 0.0
    text_count: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(
            generation_count=self.generation_count + other.generation_count,
            text_count=self.text_count + other.text_count,
        )

    def __sub__(self, other: "Work") -> "Work":
        return self + other.times(-1.0)

    def times(self, factor: float) -> "Work":
        """Returns a multiple of this work."""
        return Work(
            generation_count=self.generation_count * factor, text_count=self.text_count * factor
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitCost:
    """What one unit of work is expected to take at a backend.

    Attributes:
        generation_seconds: One answer, from prompt to last token.
        text_seconds: One embedded text.
        failure_ratio: Share of the attempts that fail, [0, 1].
    """

    generation_seconds: float
    text_seconds: float
    failure_ratio: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What a backend's replies have shown of its speed.

    Durations are averaged as logarithms: they vary by factors, and a mean of logarithms is not
    at the mercy of a single long one.

    Each kind of work has its own figures, so that a backend that answers quick embeddings does
    not pass for one that generates quickly. Waiting and loading are left out of them: waiting
    is in the outstanding work already, and a load happens once.

    Attributes:
        prompt_log: Reading a prompt.
        token_log: Generating one token.
        text_log: Embedding one text.
        failures: 1 for each attempt that failed there since it was last taken in, 0 for each
            other.
    """

    prompt_log: DecayedMean = field(default_factory=DecayedMean)
    token_log: DecayedMean = field(default_factory=DecayedMean)
    text_log: DecayedMean = field(default_factory=DecayedMean)
    failures: DecayedMean = field(default_factory=DecayedMean)

    def with_generation(self, *, prompt_seconds: float, token_seconds: float, now: float) -> Self:
        """Returns the speed after one more complete answer."""
        return replace(
            self,
            prompt_log=self.prompt_log.add(_log(prompt_seconds), now),
            token_log=self.token_log.add(_log(token_seconds), now),
        )

    def with_texts(self, text_seconds: float, now: float) -> Self:
        """Returns the speed after one more reply with vectors."""
        return replace(self, text_log=self.text_log.add(_log(text_seconds), now))

    @property
    def text_seconds(self) -> float | None:
        """What embedding one text has taken of late; None before the first."""
        return math.exp(self.text_log.value) if self.text_log.known else None

    def with_outcome(self, *, failed: bool, now: float) -> Self:
        """Returns the speed after one more attempt has ended."""
        return replace(self, failures=self.failures.add(1.0 if failed else 0.0, now))


def unit_costs(
    speeds: Mapping[str, Speed], output_token_count: DecayedMean, now: float
) -> dict[str, UnitCost]:
    """Says what a unit of work is expected to take at each backend.

    What a backend has not shown yet is taken to be as the fleet's mean, so that a new backend
    neither draws all requests to itself nor is left without any.

    Args:
        speeds: What each backend has shown, by backend id.
        output_token_count: Length of the fleet's answers in tokens.
        now: Seconds of the monotonic clock.
    """
    prompt = _mean_log(speeds.values(), lambda speed: speed.prompt_log, _PROMPT_SECONDS)
    token = _mean_log(speeds.values(), lambda speed: speed.token_log, _TOKEN_SECONDS)
    text = _mean_log(speeds.values(), lambda speed: speed.text_log, _TEXT_SECONDS)
    tokens = output_token_count.estimate(_OUTPUT_TOKEN_COUNT, now)
    return {
        backend_id: UnitCost(
            generation_seconds=(
                _expected_seconds(speed.prompt_log, prompt, now)
                + tokens * _expected_seconds(speed.token_log, token, now)
            ),
            text_seconds=_expected_seconds(speed.text_log, text, now),
            failure_ratio=speed.failures.estimate(0.0, now, prior_weight=_FAILURE_PRIOR_WEIGHT),
        )
        for backend_id, speed in speeds.items()
    }


def _expected_seconds(mean: DecayedMean, fleet_log: float, now: float) -> float:
    weight = mean.weight_at(now)
    if mean.value > fleet_log:
        trust = weight**2 / (weight**2 + _SLOWNESS_PROOF_WEIGHT**2)
    else:
        trust = weight / (weight + 1.0)
    return math.exp(fleet_log + (mean.value - fleet_log) * trust)


def load_seconds(work: Work, cost: UnitCost) -> float:
    """Returns the seconds until a backend is expected to be done with some work.

    A failed attempt has to be made again, `1 / (1 - ratio)` times on average; without this a
    backend that fails quickly would look like a quick one.

    Args:
        work: What is outstanding, with what is to be added.
        cost: What a unit takes there.
    """
    seconds = work.generation_count * cost.generation_seconds + work.text_count * cost.text_seconds
    return seconds / (1.0 - min(cost.failure_ratio, _HIGHEST_FAILURE_RATIO))


def _mean_log(
    speeds: Iterable[Speed], figure: Callable[[Speed], DecayedMean], default_seconds: float
) -> float:
    logs = [mean.value for mean in map(figure, speeds) if mean.known]
    return sum(logs) / len(logs) if logs else math.log(default_seconds)


def _log(seconds: float) -> float:
    return math.log(max(seconds, _SHORTEST_SECONDS))
