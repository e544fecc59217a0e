"""Simulations of the semantic layer on labelled questions, and what is measured on them. The
shares follow "Closing the Calibration Gap" (arXiv 2606.19719): the cache hit ratio (CHR) is
the share of questions that are answered from the cache, precision the share of hits that
are right, VCHR their product; P-CHR AUC is the area under precision over CHR, CRR its ratio
to the area under precision over recall."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from services.cache.core.semantic.agreement import required_similarity
from services.cache.core.semantic.guards import Features, features, refusal_of
from services.standin.core.minilm import Floats
from tests.bench.cache.quality_readings import name_of
from tests.bench.cache.quality_sets import Question

__all__ = [
    "DECISIONS",
    "Areas",
    "Corpus",
    "Simulated",
    "areas",
    "simulate",
    "uncontested",
]

LOWEST_SIMILARITY = 0.80
# As many candidates as the service rescores and guards.
_CANDIDATES = 5
_BLOCK_ROWS = 512
_NEIGHBOURS = 10

_NOTHING_READ: Mapping[frozenset[str], str] = MappingProxyType({})

Decision = Callable[["Corpus", int, int, float], bool]


@dataclass(frozen=True, slots=True)
class Simulated:
    """What a simulation came to; counts are sums over its runs.

    Attributes:
        questions: Questions asked.
        hits: Questions answered from the cache.
        wrong: Hits on a question with another intent.
        wrong_as_read: Those of them whose questions do not ask for the same, or were not read.
    """

    questions: int
    hits: int
    wrong: int
    wrong_as_read: int

    @property
    def hit_ratio(self) -> float:
        """Share of the questions, [0, 1]."""
        return self.hits / self.questions

    @property
    def false_share(self) -> float:
        """Share of the hits that are wrong, [0, 1]; 0 without a hit."""
        return self.wrong / self.hits if self.hits else 0.0

    @property
    def false_share_as_read(self) -> float:
        """The same, of what was read."""
        return self.wrong_as_read / self.hits if self.hits else 0.0


@dataclass(frozen=True, slots=True)
class Areas:
    """Areas under the curves over all thresholds from `LOWEST_SIMILARITY`, and their ratio."""

    p_chr_auc: float
    pr_auc: float

    @property
    def crr(self) -> float:
        """P-CHR AUC over PR-AUC; 0 where there is no hit."""
        return self.p_chr_auc / self.pr_auc if self.pr_auc else 0.0


class Corpus:
    """Labelled questions with their features and their similar questions, the nearest first.

    Args:
        questions: The questions.
        vectors: One of length 1 for each.
        readings: What tells pairs with different labels apart that were read.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        vectors: Floats,
        readings: Mapping[frozenset[str], str] = _NOTHING_READ,
    ) -> None:
        self.questions = questions
        self._readings = readings
        self.features: list[Features] = [features(question.text) for question in questions]
        self.neighbours = [_sorted_row(row) for row in _similar(vectors)]
        self._refused: dict[tuple[int, int], bool] = {}

    def refused(self, query: int, other: int) -> bool:
        """Whether a guard tells two of the questions apart."""
        key = (query, other) if query < other else (other, query)
        if key not in self._refused:
            first, second = (self.features[index] for index in key)
            self._refused[key] = refusal_of(first, second) is not None
        return self._refused[key]

    def is_right(self, query: int, other: int) -> bool:
        """Whether two questions have the same intent."""
        return self.questions[query].intent == self.questions[other].intent

    def asks_the_same_as_read(self, query: int, other: int) -> bool:
        """Whether two questions were read, and nothing was found that tells them apart."""
        pair = frozenset(name_of(self.questions[index].text) for index in (query, other))
        return self._readings.get(pair) == ""


def _by_cosine(_corpus: Corpus, _query: int, _other: int, _similarity: float) -> bool:
    return True


def _by_guards(corpus: Corpus, query: int, other: int, _similarity: float) -> bool:
    return not corpus.refused(query, other)


def _by_agreement(corpus: Corpus, query: int, other: int, similarity: float) -> bool:
    required = required_similarity(corpus.features[query], corpus.features[other])
    return similarity >= required and not corpus.refused(query, other)


DECISIONS: dict[str, Decision] = {
    "cosine": _by_cosine,
    "guards": _by_guards,
    "agreement": _by_agreement,
}
"""What a similarity above the threshold needs besides: nothing; that no guard refuses; and that it
is as large as the agreement of the words requires."""


def simulate(
    corpus: Corpus, decision: Decision, threshold: float, seeds: Sequence[int]
) -> Simulated:
    """Asks the questions in random orders; each that is not answered is stored."""
    hits = wrong = wrong_as_read = 0
    for seed in seeds:
        order = list(range(len(corpus.questions)))
        random.Random(seed).shuffle(order)
        stored: set[int] = set()
        for query in order:
            match = _match(corpus, query, stored, decision, threshold)
            if match is None:
                stored.add(query)
            else:
                hits += 1
                if not corpus.is_right(query, match):
                    wrong += 1
                    wrong_as_read += not corpus.asks_the_same_as_read(query, match)
    return Simulated(len(corpus.questions) * len(seeds), hits, wrong, wrong_as_read)


def areas(corpus: Corpus, decision: Decision, seed: int) -> Areas:
    """Sweeps the threshold over one half of the questions, the other half being stored."""
    order = list(range(len(corpus.questions)))
    random.Random(seed).shuffle(order)
    middle = len(order) // 2
    stored = set(order[:middle])
    intents = {corpus.questions[index].intent for index in stored}
    asked = order[middle:]
    scored = []
    for query in asked:
        match = _match(corpus, query, stored, decision, LOWEST_SIMILARITY)
        if match is not None:
            scored.append((_similarity(corpus, query, match), corpus.is_right(query, match)))
    scored.sort(reverse=True)
    answerable = sum(corpus.questions[query].intent in intents for query in asked)
    right = 0
    p_chr_auc = pr_auc = 0.0
    for rank, (_, is_right) in enumerate(scored, 1):
        right += is_right
        p_chr_auc += right / rank / len(asked)
        pr_auc += is_right * right / rank / answerable
    return Areas(p_chr_auc, pr_auc)


def uncontested(questions: Sequence[Question], vectors: Floats) -> list[Question]:
    """Leaves out questions whose intent fewer than half of their nearest neighbours have."""
    kept = []
    for begin in range(0, len(vectors), _BLOCK_ROWS):
        block = vectors[begin : begin + _BLOCK_ROWS] @ vectors.T
        nearest = np.argpartition(-block, _NEIGHBOURS + 1, axis=1)[:, : _NEIGHBOURS + 1]
        for index, row in enumerate(nearest.tolist(), begin):
            others = [questions[other].intent for other in row if other != index]
            if others.count(questions[index].intent) * 2 >= _NEIGHBOURS:
                kept.append(questions[index])
    return kept


def _match(
    corpus: Corpus, query: int, stored: set[int], decision: Decision, threshold: float
) -> int | None:
    candidates = 0
    for similarity, other in corpus.neighbours[query]:
        if similarity < threshold or candidates == _CANDIDATES:
            return None
        if other in stored:
            candidates += 1
            if decision(corpus, query, other, similarity):
                return other
    return None


def _similarity(corpus: Corpus, query: int, other: int) -> float:
    return next(similarity for similarity, index in corpus.neighbours[query] if index == other)


def _similar(vectors: Floats) -> list[list[tuple[float, int]]]:
    rows: list[list[tuple[float, int]]] = []
    for begin in range(0, len(vectors), _BLOCK_ROWS):
        block = vectors[begin : begin + _BLOCK_ROWS] @ vectors.T
        for row, similarities in enumerate(block, begin):
            near = np.flatnonzero(similarities >= LOWEST_SIMILARITY)
            rows.append(
                [(float(similarities[index]), int(index)) for index in near if index != row]
            )
    return rows


def _sorted_row(row: list[tuple[float, int]]) -> list[tuple[float, int]]:
    return sorted(row, reverse=True)
