"""What is asked, how and by whom: drawn from weights, the same for the same seed."""

import random
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Generic, TypeVar

__all__ = ["TENANT_NAME", "TENANT_RULE", "Ask", "Mix", "QuestionPool", "Traffic"]

TENANT_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""What services accept as a tenant; other characters cannot even be sent."""

TENANT_RULE = (
    "it has 1 to 64 characters of a-z, 0-9, '.', '_', '-', and begins with one of a-z, 0-9"
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """What traffic consists of.

    Attributes:
        modes: Weights by mode: direct, rag, deep, agent.
        tenants: Weights by tenant.
        repeat_ratio: Share of questions that repeat an earlier one of the same tenant and mode,
            word for word, [0, 1].
        paraphrase_ratio: Share of questions that ask an earlier one in other words, [0, 1]; with
            `repeat_ratio` at most 1.
        window: How many earlier questions are remembered, of each tenant in each mode.
        zipf_exponent: How much more often the latest of them are asked again: the one `k` questions
            back has the weight `k ** -exponent`.
    """

    modes: Mapping[str, float]
    tenants: Mapping[str, float]
    repeat_ratio: float = 0.0
    paraphrase_ratio: float = 0.0
    window: int = 100
    zipf_exponent: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A question to be asked.

    Attributes:
        text: The question.
        mode: How it is to be answered.
        tenant: Who asks.
        kind: `new`, `repeat` or `paraphrase`.
        phase: Number of the part of the run that it belongs to, from 0.
    """

    text: str
    mode: str
    tenant: str
    kind: str
    phase: int = 0


class _Weighted(Generic[T]):
    """Draws one of several by weight."""

    def __init__(self, weights: Mapping[T, float]) -> None:
        self._names = list(weights)
        self._sums = list(accumulate(weights.values()))

    def draw(self, rng: random.Random) -> T:
        return rng.choices(self._names, cum_weights=self._sums)[0]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question that was asked: the text, and all wordings of its meaning."""

    text: str
    wordings: tuple[str, ...]


class QuestionPool:
    """Questions, each different from all before it.

    They come in shuffled rounds. When all have been asked, the next round numbers them, so that a
    new question stays one however long a run is.

    Args:
        groups: Wordings of each question, those of one meaning together; the first is asked first.
        rng: Shuffles.
        tag: Stands before the number, from the first round on, so that no other run has asked the
            same; empty for questions as they are.

    Raises:
        ValueError: There is no question.
    """

    def __init__(
        self, groups: Sequence[Sequence[str]], rng: random.Random, *, tag: str = ""
    ) -> None:
        if not groups or not all(groups):
            raise ValueError("there is no question to ask")
        self._groups = groups
        self._rng = rng
        self._tag = tag
        self._round = 0
        self._order: list[int] = []

    def draw(self) -> tuple[str, ...]:
        """Returns the wordings of the next question."""
        if not self._order:
            self._round += 1
            self._order = list(range(len(self._groups)))
            self._rng.shuffle(self._order)
        suffix = f" (case {self._tag}{self._round})" if self._tag or self._round > 1 else ""
        return tuple(each + suffix for each in self._groups[self._order.pop()])


class Traffic:
    """Questions of a run, whose parts may differ in what they consist of.

    Args:
        rng: Draws everything but the order of the questions themselves.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._asked: dict[tuple[str, str], deque[_Asked]] = {}

    def asks(self, pool: QuestionPool, mix: Mix, *, phase: int = 0) -> Iterator[Ask]:
        """Yields questions without end.

        Args:
            pool: Where new questions come from.
            mix: What they consist of.
            phase: Number of the part of the run.
        """
        modes, tenants = _Weighted(mix.modes), _Weighted(mix.tenants)
        ranks = range(1, mix.window + 1)
        rank_sums = list(accumulate(rank**-mix.zipf_exponent for rank in ranks))
        while True:
            mode, tenant = modes.draw(self._rng), tenants.draw(self._rng)
            earlier = self._asked.setdefault((mode, tenant), deque())
            kind, asked = self._choose(earlier, pool, mix, rank_sums)
            if kind != "repeat":
                earlier.appendleft(asked)
            while len(earlier) > mix.window:
                earlier.pop()
            yield Ask(text=asked.text, mode=mode, tenant=tenant, kind=kind, phase=phase)

    def _choose(
        self, earlier: "deque[_Asked]", pool: QuestionPool, mix: Mix, rank_sums: list[float]
    ) -> tuple[str, _Asked]:
        # All are drawn always, so that what comes of one shifts none of those after it.
        kind_at, rank_at, wording_at = (self._rng.random() for _ in range(3))
        if earlier and kind_at < mix.repeat_ratio + mix.paraphrase_ratio:
            aim = rank_at * rank_sums[min(len(earlier), mix.window) - 1]
            chosen = next(
                each for each, reached in zip(earlier, rank_sums, strict=False) if aim < reached
            )
            if kind_at < mix.repeat_ratio:
                return "repeat", chosen
            others = [each for each in chosen.wordings if each != chosen.text]
            if others:
                wording = others[int(wording_at * len(others))]
                return "paraphrase", _Asked(wording, chosen.wordings)
        wordings = pool.draw()
        return "new", _Asked(wordings[0], wordings)
