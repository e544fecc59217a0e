"""Looking for the answer to a question that means the same.

First the same words, which need no vector. Then the most similar questions, at most five that still
count: the guards must not tell them apart, and what was found out about matches as similar decides
whether the answer may be given or only offered. Below the threshold, a question that shares enough
words may still have its answer offered, never given, unless the threshold was raised.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from services.cache.core.frames import FrameRejected
from services.cache.core.layers import Layer
from services.cache.core.model import Control, Hit
from services.cache.core.semantic.agreement import LEAST_SIMILARITY, refusal_at
from services.cache.core.semantic.budget import effective_threshold, judge
from services.cache.core.semantic.decision import Reason, SemanticOutcome, reason_to_doubt
from services.cache.core.semantic.entries import SemanticEntry
from services.cache.core.semantic.guards import Features, Guard, features
from services.cache.core.semantic.index import FloatVector
from services.cache.core.semantic.partition import Candidate, Partition
from services.cache.core.semantic.scope import QuestionScope, scope_of
from services.cache.follower import Knowledge
from services.cache.look_up import ANY_VALUE, accept, find_local
from services.cache.semantic_layer import SemanticLayer, Where
from services.cache.semantic_store import OtherDimension

__all__ = ["Question", "Rejection", "SemanticLookup", "SemanticMatch", "look_up_semantic"]

_LAYER = Layer.SEMANTIC
_CANDIDATE_LIMIT = 5
# More than five, for among the most similar ones some may have been invalidated.
_SCAN_LIMIT = 64
# Takes about .3 ms; to another thread and back takes .1 to .2 besides (measured, between calls).
_MOST_COMPONENTS_ON_LOOP = 2_000_000
# Taking a question apart is most of what a decision costs.
_KNOWN_QUESTIONS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked.

    Attributes:
        where: Its partition.
        query: Its words.
        vector: Its vector of length 1; None to look for the same words only.
        control: Which answers to accept.
        min_similarity: Least similarity that the caller accepts; None for the threshold's.
        collections: Collections the answer comes from.
    """

    where: Where
    query: str
    vector: FloatVector | None = None
    control: Control = ANY_VALUE
    min_similarity: float | None = None
    collections: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticMatch:
    """An answer found.

    Attributes:
        entry: What it is the answer to.
        similarity: Cosine similarity of the two questions; 1 for the same words.
        reason: Why it is a candidate only; None on a hit.
        verification_wanted: Whether the caller is asked to find out if it is right.
        answer: The answer as it was stored, and its age.
    """

    entry: SemanticEntry
    similarity: float
    reason: Reason | None
    verification_wanted: bool
    answer: Hit


@dataclass(frozen=True, slots=True)
class Rejection:
    """A similar question that a guard told apart.

    Attributes:
        similarity: Cosine similarity.
        guard: What told them apart.
    """

    similarity: float
    guard: Guard


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticLookup:
    """What is known of a question.

    Attributes:
        outcome: What it came to.
        match: The answer, on a hit or a candidate.
        rejections: Similar questions that were refused, the most similar first.
        threshold: Least similarity that counted.
        question_scope: Why it was not looked for; None where it was, or the caller wished so.
        read_ms: When it was looked for, by the store's clock at the earliest.
        best_similarity: Of the most similar question that was compared; None where none was.
        degraded: Whether the shared store could not be asked.
    """

    outcome: SemanticOutcome
    match: SemanticMatch | None = None
    rejections: tuple[Rejection, ...] = ()
    threshold: float = 0.0
    question_scope: QuestionScope | None = None
    read_ms: int = 0
    best_similarity: float | None = None
    degraded: bool = False


async def look_up_semantic(layer: SemanticLayer, question: Question) -> SemanticLookup:
    """Looks for an answer; a store that is away makes misses, never an error.

    Args:
        layer: Where to look.
        question: What is asked.

    Raises:
        OtherDimension: The partition's vectors have another number of components.
    """
    question_scope = scope_of(question.query)
    if question.control.bypass or question_scope is not None:
        return SemanticLookup(
            outcome=SemanticOutcome.BYPASSED,
            threshold=layer.threshold(question.where, question.min_similarity),
            question_scope=question_scope,
            read_ms=layer.levels.store_now_ms(),
        )
    knowledge = await layer.ready(question.where)
    return await _Search(layer, question, knowledge).run()


class _Search:
    """One lookup.

    Args:
        layer: Where to look.
        question: What is asked.
        knowledge: How good the knowledge of the questions is.
    """

    def __init__(self, layer: SemanticLayer, question: Question, knowledge: Knowledge) -> None:
        self._layer = layer
        self._question = question
        self._where = question.where
        self._knowledge = knowledge
        self._degraded = knowledge.degraded
        self._now_ms = layer.levels.store_now_ms()
        self._after_ms = _oldest_accepted_ms(question.control, self._now_ms)
        self._verdicts = layer.calibration.verdicts(question.where.subject)
        self._budget_ratio = layer.policy.error_budget_ratio
        self._set_threshold = layer.threshold(question.where, question.min_similarity)
        self._floor = self._set_threshold
        if self._set_threshold <= layer.policy.threshold:
            self._floor = min(self._floor, LEAST_SIMILARITY)

    async def run(self) -> SemanticLookup:
        """Finds the best answer that may be given, or else offered."""
        if not self._may_serve():
            return self._result(None)
        match = await self._same_words()
        if match is not None or self._question.vector is None:
            return self._result(match)
        candidates = await self._most_similar(self._question.vector)
        rejections, passed = self._guarded(candidates)
        match = await self._best(passed)
        best_similarity = candidates[0][1] if candidates else None
        return self._result(match, rejections, best_similarity)

    def _may_serve(self) -> bool:
        if self._knowledge in (Knowledge.PENDING, Knowledge.NONE):
            return False
        levels = self._layer.levels
        return levels.epochs.trusted(levels.clock.monotonic())

    def _result(
        self,
        match: SemanticMatch | None,
        rejections: tuple[Rejection, ...] = (),
        best_similarity: float | None = None,
    ) -> SemanticLookup:
        if match is None:
            outcome = SemanticOutcome.MISS
        elif match.reason is not None:
            outcome = SemanticOutcome.CANDIDATE
        elif match.similarity == 1.0:
            outcome = SemanticOutcome.EXACT
        else:
            outcome = SemanticOutcome.SIMILAR
        return SemanticLookup(
            outcome=outcome,
            match=match,
            rejections=rejections,
            threshold=effective_threshold(
                self._verdicts, self._set_threshold, budget_ratio=self._budget_ratio
            ),
            read_ms=self._now_ms,
            best_similarity=best_similarity,
            degraded=self._degraded or not self._layer.levels.shared.available,
        )

    async def _same_words(self) -> SemanticMatch | None:
        partition = self._layer.feed.partition(self._where.name)
        entry = partition.find(self._layer.form(self._where, self._question.query))
        if entry is None or entry.expires_ms <= self._now_ms or not self._counts(entry):
            return None
        return await self._best([(entry, 1.0)])

    async def _most_similar(self, vector: FloatVector) -> list[Candidate]:
        feed, name = self._layer.feed, self._where.name
        while True:
            partition = feed.partition(name)
            if partition.dimension not in (None, len(vector)):
                raise OtherDimension(partition.dimension or 0)
            rows = await self._scan(partition, vector)
            # Loaded anew meanwhile, it may be without entries that were removed.
            if feed.partition(name) is partition:
                break
        ranked = partition.rank(
            vector,
            rows,
            floor=self._floor,
            now_ms=self._now_ms,
            after_ms=self._after_ms,
        )
        counting = (candidate for candidate in ranked if self._counts(candidate[0]))
        return list(islice(counting, _CANDIDATE_LIMIT))

    async def _scan(self, partition: Partition, vector: FloatVector) -> list[int]:
        def scan() -> list[int]:
            return partition.scan(
                vector,
                floor=self._floor,
                now_ms=self._now_ms,
                after_ms=self._after_ms,
                limit=_SCAN_LIMIT,
            )

        if len(partition) * len(vector) <= _MOST_COMPONENTS_ON_LOOP:
            return scan()
        return await asyncio.to_thread(scan)

    def _counts(self, entry: SemanticEntry) -> bool:
        """Returns whether an answer is not too old; forgets it where it was invalidated."""
        if not self._layer.is_valid(self._where, entry.created_ms, entry.tags):
            # With the store away, what counts is judged more strictly than it will be again.
            if self._knowledge is Knowledge.IN_STEP:
                self._layer.feed.forget(self._where.name, entry)
            return False
        return entry.created_ms > self._after_ms

    def _guarded(
        self, candidates: Sequence[Candidate]
    ) -> tuple[tuple[Rejection, ...], list[Candidate]]:
        asked = _features(self._question.query)
        rejections: list[Rejection] = []
        passed: list[Candidate] = []
        for entry, similarity in candidates:
            other = _features(entry.question)
            similar_enough = similarity >= self._set_threshold
            guard = refusal_at(similarity, asked, other)
            if guard is None:
                passed.append((entry, similarity))
            elif similar_enough:
                rejections.append(Rejection(similarity, guard))
                self._layer.levels.recorder.guard_refused(guard)
        return tuple(rejections), passed

    async def _best(self, candidates: Sequence[Candidate]) -> SemanticMatch | None:
        """Returns the first answer that may be given, or else the first that may be offered."""
        doubts = [(self._doubt(*candidate), *candidate) for candidate in candidates]
        for reason, entry, similarity in sorted(doubts, key=lambda each: each[0] is not None):
            answer = await self._fetch(entry)
            if answer is not None:
                ratio = self._layer.policy.verification_ratio
                return SemanticMatch(
                    entry=entry,
                    similarity=similarity,
                    reason=reason,
                    verification_wanted=similarity < 1.0 and self._layer.levels.draw() < ratio,
                    answer=answer,
                )
        return None

    def _doubt(self, entry: SemanticEntry, similarity: float) -> Reason | None:
        epochs, tenant_id = self._layer.levels.epochs, self._where.tenant_id
        standing = (
            judge(self._verdicts, similarity, budget_ratio=self._budget_ratio)
            if similarity < 1.0
            else None
        )
        changed_ms = max(
            (epochs.grown_at(tenant_id, name) for name in self._question.collections), default=0
        )
        return reason_to_doubt(
            standing,
            similar_enough=similarity >= self._set_threshold,
            created_ms=entry.created_ms,
            changed_ms=changed_ms,
        )

    async def _fetch(self, entry: SemanticEntry) -> Hit | None:
        levels, scope = self._layer.levels, self._where.scope
        control = self._question.control
        key = self._layer.answer_key(self._where, entry)
        local = find_local(levels, _LAYER, key, scope=scope, control=control)
        if local is not None:
            return local
        if self._knowledge is not Knowledge.IN_STEP:
            return None
        stored = await levels.shared.read(_LAYER, [key.value])
        if stored is None:
            self._degraded = True
            return None
        (data,) = stored
        try:
            if data is not None:
                return accept(levels, _LAYER, key, data, scope=scope, control=control)
        except FrameRejected:
            levels.recorder.rejected(_LAYER, 1)
        # Without its answer a question is of no use.
        self._layer.feed.forget(self._where.name, entry)
        return None


@lru_cache(maxsize=_KNOWN_QUESTIONS)
def _features(question: str) -> Features:
    return features(question)


def _oldest_accepted_ms(control: Control, now_ms: int) -> int:
    """Returns the time that answers must be younger than, milliseconds since the Unix epoch."""
    oldest_ms = control.min_created_ms or 0
    if control.max_age_seconds is not None:
        oldest_ms = max(oldest_ms, now_ms - int(control.max_age_seconds * 1000) - 1)
    return oldest_ms
