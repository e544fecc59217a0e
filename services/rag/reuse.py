"""Answers a question with what was answered before: to the same question, or to one like it.

Whatever the cache says, an answer is given again only while every passage it was made from is
stored as it was then; so what was deleted or changed is never answered from, not even while the
cache has still to be told.
"""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

from services.common.afterwards import after_answer, done_after_answer
from services.common.errors import PeerUnavailable, ServiceError
from services.common.metrics import Metrics
from services.rag.background import BackgroundWork
from services.rag.core.answer import Answer, AnswerOrigin
from services.rag.core.documents import Vector
from services.rag.core.options import CachePolicy, Mode
from services.rag.core.passages import RankedPassage
from services.rag.core.profile import DegradationReason, WarningKind
from services.rag.core.query_record import CacheEntry
from services.rag.core.reuse import (
    Verdict,
    access_fingerprint,
    configuration_fingerprint,
    judge_evidence,
    question_digest,
    with_degradations,
)
from services.rag.evidence_check import (
    EvidenceCheck,
    EvidenceMemory,
    earlier_of,
    question_key,
)
from services.rag.keep_answer import keep_answer
from services.rag.models import ModelCatalogue, model_identity, split_identity
from services.rag.retrieve import Search
from services.rag.semantic_port import (
    Judge,
    SemanticCachePort,
    SemanticLookup,
    SemanticMatch,
    SemanticPartition,
)
from services.rag.store_port import DocumentStore
from services.rag.task import AnswerTask
from services.rag.verify import Verifier

__all__ = ["AnswerReuse", "Reuse"]

# Models that may have embedded a collection of which nothing is known.
_MOST_GUESSES = 3
_MOST_COLLECTIONS = 10_000


class AnswerReuse:
    """Finds answers that were given before, and keeps new ones.

    Args:
        cache: Knows them.
        store: Knows what documents there are.
        catalogue: Models of the fleet.
        verifier: Answers anew what is to be verified.
        background: Takes what nobody waits for.
        metrics: Receives what came of it.
    """

    def __init__(
        self,
        *,
        cache: SemanticCachePort,
        store: DocumentStore,
        catalogue: ModelCatalogue,
        verifier: Verifier,
        background: BackgroundWork,
        metrics: Metrics,
    ) -> None:
        self.cache = cache
        self.store = store
        self.verifier = verifier
        self.background = background
        self.metrics = metrics
        self.evidence = EvidenceMemory()
        self._catalogue = catalogue
        # What embeds each collection, for when the store cannot be asked.
        self._identities: OrderedDict[tuple[str, str], str] = OrderedDict()

    def begin_early(self, task: AnswerTask) -> "Reuse | None":
        """Begins to look for the answer to a question before its collection was looked up.

        What embeds a collection never changes while the collection lasts. Where another one has
        taken its name since, nothing that is found here holds: an answer is given only while the
        passages that it was made from are stored, in a collection of that name.

        Args:
            task: The question, with a collection.

        Returns:
            None where there can be no answer, or the collection is not known.
        """
        identity = self._identities.get((task.tenant_id, task.question.collection))
        reuse = self._reuse(task, identity) if identity is not None else None
        if reuse is not None:
            reuse.needs_store = True
        return reuse

    def begin(
        self, task: AnswerTask, search: Search, early: "Reuse | None" = None
    ) -> "Reuse | None":
        """Begins to look for the answer to a question; None where there can be none.

        Args:
            task: The question, with a collection.
            search: The search for its passages.
            early: What `begin_early` has begun, to go on with where the collection is the same.
        """
        identity = search.collection.embedding_model
        if identity is None:
            return None
        self._note_identity((task.tenant_id, task.question.collection), identity)
        if early is None or early.partition.embedding_model_digest != split_identity(identity)[1]:
            return self._reuse(task, identity)
        early.needs_store = False
        return early

    def _reuse(self, task: AnswerTask, identity: str) -> "Reuse | None":
        partition = self._partition(task, identity)
        # What an agent looked for is its own choice, which another call may make otherwise.
        if partition is None or not task.may_keep or task.question.mode is Mode.AGENT:
            return None
        return Reuse(self, task, partition)

    async def find_stale(self, task: AnswerTask) -> Answer | None:
        """Returns the answer to the same question as it was kept, where the store is away.

        Nobody can say then whether what it was made from is still stored; that is noted.
        """
        if not task.may_look_up:
            return None
        for identity in self._likely_identities(task):
            partition = self._partition(task, identity)
            if partition is not None:
                found = await Reuse(self, task, partition).find_unchecked()
                if found is not None:
                    return found
        return None

    def _likely_identities(self, task: AnswerTask) -> Sequence[str]:
        """Returns what may embed a collection that cannot be looked up, the likeliest first."""
        known = self._identities.get((task.tenant_id, task.question.collection))
        if known is not None:
            return (known,)
        # Nobody has asked this process about it before: it began after the store went away, or
        # others were asked.
        return [model_identity(each) for each in self._catalogue.known_embedding_models()][
            :_MOST_GUESSES
        ]

    def _partition(self, task: AnswerTask, identity: str) -> SemanticPartition | None:
        question = task.question
        # A model that is not known yet is not waited for: nothing may be late because of the cache.
        model = self._catalogue.known_chat_model(question.model)
        if model is None:
            return None
        return SemanticPartition(
            embedding_model_digest=split_identity(identity)[1],
            model_digest=model.digest,
            access_fingerprint=access_fingerprint(question.collection, question.retrieval.access),
            configuration_fingerprint=configuration_fingerprint(question, task.sampling),
            namespace=task.namespace,
        )

    def _note_identity(self, key: tuple[str, str], identity: str) -> None:
        self._identities[key] = identity
        self._identities.move_to_end(key)
        if len(self._identities) > _MOST_COLLECTIONS:
            self._identities.popitem(last=False)


class Reuse:
    """Looking for the answer to one question, in ever wider circles, and keeping the new one.

    Args:
        parts: What it takes.
        task: The question.
        partition: Where answers to it are kept.

    Attributes:
        partition: Where answers to it are kept.
        is_over: Whether there is no use in looking any further.
        was_looked_up: Whether the same question was looked for.
        needs_store: Whether it is for the caller to see to it that the store is away.
    """

    def __init__(self, parts: AnswerReuse, task: AnswerTask, partition: SemanticPartition) -> None:
        self.is_over = False
        self.was_looked_up = False
        self.needs_store = False
        self.partition = partition
        self._its = parts
        self._task = task
        self._check = EvidenceCheck(parts.store, task)
        self._candidate: SemanticMatch | None = None
        self._basis_time_ns: int | None = None

    async def find_same(self) -> Answer | None:
        """Returns the answer to the same question in the same words, if there is one.

        Raises:
            StoreUnavailable: There may be one, and with `needs_store` nobody can say if it holds.
        """
        task_has_history = bool(self._task.question.history)
        key, evidence = question_key(self._task, self.partition), self._its.evidence
        async with self._check.begun(evidence.recall(key)):
            lookup = await self._look_up("query_lookup", None, vector_follows=not task_has_history)
            answer = await self._judge(lookup)
        if lookup is not None and lookup.outcome != "bypassed":
            evidence.note(key, self._check.noted if answer is not None else None)
        if task_has_history and not self.is_over:
            # What is meant by the words depends on what was said before.
            self._end("miss")
        self.was_looked_up = True
        if lookup is not None and lookup.outcome == "bypassed":
            self._end("bypassed")
            if self._task.question.cache_policy is CachePolicy.USE:
                # The cache takes no answers to such questions.
                self._basis_time_ns = None
        return answer

    async def find_unchecked(self) -> Answer | None:
        """Returns the answer to the same question as it was kept, marked as stale."""
        lookup = await self._look_up("query_lookup", None)
        match = lookup.match if lookup is not None else None
        if match is None or match.similarity < 1.0:
            if not self.is_over:
                self._end("miss")
            return None
        task = self._task
        task.recorder.degrade(
            DegradationReason.SERVED_STALE,
            "query_lookup",
            f"given {match.age_seconds:.0f} s ago; its sources cannot be checked now",
        )
        _repeat_warnings(task, match)
        self._count("unchecked")
        answer = match.answer.restore_as_kept(task.question, AnswerOrigin.CACHED, earlier_of(match))
        return with_degradations(answer, task.reasons)

    async def find_similar(self, vector: Vector) -> Answer | None:
        """Returns the answer to a question that means the same, if there is one.

        Args:
            vector: The question's embedding.
        """
        lookup = await self._look_up("semantic_lookup", vector)
        answer = await self._judge(lookup)
        if answer is None and not self.is_over:
            self._end("miss")
        return answer

    async def confirm(self, found: Sequence[RankedPassage]) -> Answer | None:
        """Returns the answer of a candidate, if there is one and its evidence holds.

        Args:
            found: What retrieval finds for the question, best first.
        """
        match, task = self._candidate, self._task
        if match is None:
            return None
        verdict = judge_evidence(match.answer.cited_chunk_ids, match.answer.recognized(found))
        answer: Answer | None = None
        if verdict is Verdict.RIGHT:
            answer = await self._restore(match, exact=match.similarity >= 1.0, confirmed=True)
            if answer is None:
                verdict = Verdict.UNDECIDED
                self._count("outdated")
            else:
                self._count("confirmed")
        else:
            self._count("unconfirmed")
        self._its.background.start(
            "report",
            lambda: self._its.cache.report(
                self.partition,
                match,
                verdict,
                Judge.EVIDENCE,
                served=answer is not None,
                mode=task.question.mode.value,
            ),
        )
        return answer

    async def keep(self, answer: Answer, vector: Vector | None) -> None:
        """Keeps a new answer for others, if it is good enough.

        Args:
            answer: The answer.
            vector: The question's embedding; None where there is none.
        """
        if vector is None or self._basis_time_ns is None:
            return
        task = self._task
        entry_id = await keep_answer(
            self._its.cache, self.partition, task, answer, vector, basis_time_ns=self._basis_time_ns
        )
        self._note_entry(entry_id, task.question.text, 1.0)

    async def _look_up(
        self, stage_name: str, vector: Vector | None, *, vector_follows: bool = False
    ) -> SemanticLookup | None:
        task, lookup = self._task, None
        with task.recorder.stage(stage_name) as stage:
            try:
                lookup = await self._its.cache.look_up(
                    self.partition,
                    task.question.text,
                    vector=vector,
                    vector_follows=vector_follows,
                    mode=task.question.mode.value,
                    collection=task.question.collection,
                    bypass=task.question.cache_policy is not CachePolicy.USE,
                )
            except PeerUnavailable:
                stage.failed = True
                task.lose_cache(stage_name)
            stage.cache_outcome = lookup.outcome if lookup is not None else "unavailable"
        if lookup is None:
            self._end("unavailable")
            return None
        if lookup.degraded:
            task.lose_cache(stage_name, entirely=False)
        if self._basis_time_ns is None:
            self._basis_time_ns = lookup.read_time_ns
        task.note_read_time(lookup.read_time_ns)
        task.must_be_anew |= lookup.must_be_anew
        return lookup

    async def _judge(self, lookup: SemanticLookup | None) -> Answer | None:
        """Takes the answer of a hit if it still holds, and notes a candidate."""
        if lookup is None or lookup.match is None:
            return None
        if lookup.outcome == "candidate":
            self._candidate = lookup.match
            self.is_over = True
            return None
        exact = lookup.outcome == "hit_exact"
        answer = await self._restore(lookup.match, exact=exact, confirmed=False)
        self._end("outdated" if answer is None else "exact" if exact else "similar")
        return answer

    async def _restore(
        self, match: SemanticMatch, *, exact: bool, confirmed: bool
    ) -> Answer | None:
        """Makes the answer of a match, if all it was made from is stored as it was then."""
        task = self._task
        origin = AnswerOrigin.CACHED if exact else AnswerOrigin.CACHED_SIMILAR
        with task.recorder.stage("evidence_check") as stage:
            try:
                answer, stage.item_count = await self._check.restore(match, origin)
            except ServiceError:
                stage.failed = True
                if self.needs_store:
                    raise
                answer, stage.item_count = None, 0
            if answer is None:
                stage.cache_outcome = "miss"
            elif confirmed:
                stage.cache_outcome = "hit_confirmed"
        if answer is None:
            return None
        after_answer(partial(self._note_entry, match.entry_id, match.query, match.similarity))
        _repeat_warnings(task, match)
        if match.verification_wanted and not task.question.history:
            self._its.background.start(
                "verification",
                lambda: self._its.verifier.verify(task, self.partition, match),
            )
        return with_degradations(answer, task.reasons)

    def _note_entry(self, entry_id: str, text: str, similarity: float) -> None:
        """Notes which kept answer is given, for when its user finds it wrong."""
        if entry_id:
            its = self.partition
            self._task.recorder.cache_entry = CacheEntry(
                question_digest=question_digest(text),
                entry_id=entry_id,
                similarity=similarity,
                embedding_model_digest=its.embedding_model_digest,
                model_digest=its.model_digest,
                access_fingerprint=its.access_fingerprint,
                configuration_fingerprint=its.configuration_fingerprint,
                namespace=its.namespace,
            )

    def _end(self, outcome: str) -> None:
        self.is_over = True
        self._count(outcome)

    @done_after_answer
    def _count(self, outcome: str) -> None:
        self._its.metrics.count("rag_answer_reuse_total", outcome)


def _repeat_warnings(task: AnswerTask, match: SemanticMatch) -> None:
    for each in match.answer.warnings:
        task.recorder.warn(WarningKind.REPEATED, each)
