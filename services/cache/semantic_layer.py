"""The semantic layer with what is needed to use it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from services.cache.core.keys import EntryKey
from services.cache.core.model import Scope
from services.cache.core.semantic.decision import SemanticPolicy
from services.cache.core.semantic.entries import SemanticEntry, form_digest
from services.cache.core.semantic.names import CHANNEL, PartitionName, answer_key
from services.cache.core.semantic.normal import normal_form
from services.cache.follower import Knowledge
from services.cache.levels import Levels
from services.cache.notices import Notices
from services.cache.semantic_calibration import Calibration, Subject
from services.cache.semantic_feed import SemanticFeed
from services.cache.semantic_store import Place, SemanticStore

__all__ = ["SemanticLayer", "Where", "make_semantic_layer"]

_WAIT_SECONDS = 0.1
_DEADLINE_MARGIN_SECONDS = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """A partition, and what applies to it.

    Attributes:
        name: Its name.
        subject: What verdicts on its matches are about.
    """

    name: PartitionName
    subject: Subject

    @property
    def tenant_id(self) -> str:
        """Its owner."""
        return self.subject.tenant_id

    @property
    def scope(self) -> Scope:
        """What its answers belong to."""
        return self.name.scope

    @property
    def vector_scope(self) -> Scope:
        """What its vectors belong to."""
        return Scope(self.tenant_id, self.subject.namespace, self.subject.embedding_model_digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticLayer:
    """Everything that a semantic lookup, store or report works with.

    Attributes:
        levels: Where answers are kept, and what was invalidated.
        feed: The questions.
        calibration: What was found out about matches.
        policy: When answers are given.
        remaining_seconds: What is left of the running call's deadline; None where there is none.
        wait_seconds: How long a lookup waits for what is not in memory. What is not there by then
            is done without: a load goes on, a store that hangs is none.
    """

    levels: Levels
    feed: SemanticFeed
    calibration: Calibration
    policy: SemanticPolicy
    remaining_seconds: Callable[[], float | None]
    wait_seconds: float

    def connect(self, notices: Notices) -> None:
        """Has what other replicas say passed on to this layer; before `notices` runs."""
        notices.on(CHANNEL, self._take_notice)
        notices.on_gap(self._fall_behind)
        self.levels.shared.on_recovered(self._recover)

    async def run(self) -> None:
        """Keeps memory in step with the shared store; never returns."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.feed.run())
            group.create_task(self.calibration.run())

    async def ready(self, where: Where) -> Knowledge:
        """Gets in step all that a lookup rests on, at the same time.

        Returns:
            How good the knowledge of the questions is; at most BEHIND where invalidations are not
            up to date.
        """
        if self.feed.is_current(where.name) and self.calibration.is_current(where.tenant_id):
            up_to_date = await self.levels.epochs.ready(where.tenant_id)
            return Knowledge.IN_STEP if up_to_date else Knowledge.BEHIND
        return await self._become_ready(where)

    async def _become_ready(self, where: Where) -> Knowledge:
        wait_seconds = self._wait_seconds()
        async with asyncio.TaskGroup() as group:
            invalidations = group.create_task(self.levels.epochs.ready(where.tenant_id))
            group.create_task(self.calibration.ready(where.tenant_id, wait_seconds))
            questions = group.create_task(self.feed.ready(where.name, wait_seconds))
        knowledge = questions.result()
        if knowledge is Knowledge.IN_STEP and not invalidations.result():
            return Knowledge.BEHIND
        return knowledge

    def held(self) -> list[SemanticEntry]:
        """Returns the questions in memory at this moment."""
        return self.feed.held()

    def is_valid(self, where: Where, created_ms: int, tags: tuple[str, ...]) -> bool:
        """Returns whether nothing that an answer depends on was invalidated."""
        is_valid = self.levels.epochs.is_valid
        return is_valid(where.scope, created_ms, tags) and is_valid(
            where.vector_scope, created_ms, tags
        )

    def threshold(self, where: Where, least: float | None = None) -> float:
        """Returns the threshold as it was set.

        Args:
            where: The partition.
            least: What the caller wishes; can only raise it.
        """
        in_namespace = self.levels.epochs.threshold(where.tenant_id, where.subject.namespace)
        return max(self.policy.threshold, in_namespace or 0.0, least or 0.0)

    def form(self, where: Where, query: str) -> str:
        """Returns what is the same for all ways to write a question that make no difference."""
        return form_digest(
            normal_form(query), partition_id=where.name.partition_id, pepper=self.levels.pepper
        )

    def answer_key(self, where: Where, entry: SemanticEntry) -> EntryKey:
        """Returns where the answer of an entry is."""
        return answer_key(where.name, entry.entry_id, pepper=self.levels.pepper)

    def _wait_seconds(self) -> float:
        remaining = self.remaining_seconds()
        if remaining is None:
            return self.wait_seconds
        return max(0.0, min(self.wait_seconds, remaining - _DEADLINE_MARGIN_SECONDS))

    def _take_notice(self, payload: bytes) -> None:
        kind, _, rest = payload.decode().partition(" ")
        if kind == "c":
            self.calibration.counted_elsewhere(rest)
        elif kind == "p":
            partition_id, generation, number = rest.split(" ")
            place = Place(generation.encode(), int(number))
            self.feed.changed_elsewhere(partition_id, place)

    def _fall_behind(self) -> None:
        self.feed.fall_behind()
        self.calibration.fall_behind()

    async def _recover(self) -> None:
        # Each partition is brought up to date before it is next used.
        self._fall_behind()


def make_semantic_layer(
    levels: Levels,
    *,
    policy: SemanticPolicy,
    memory_limit_bytes: int,
    tenant_entry_limit: int,
    remaining_seconds: Callable[[], float | None],
    wait_seconds: float = _WAIT_SECONDS,
) -> SemanticLayer:
    """Makes the layer; `connect` it, and let it `run`.

    Args:
        levels: Where answers are kept; with a local level for them.
        policy: When answers are given.
        memory_limit_bytes: Most memory for questions and their vectors.
        tenant_entry_limit: Most questions of a tenant.
        remaining_seconds: What is left of the running call's deadline; None where there is none.
        wait_seconds: How long a lookup waits for what is not in memory.
    """
    feed = SemanticFeed(
        SemanticStore(
            levels.shared,
            store_clock=levels.store_clock,
            clock=levels.clock,
            pepper=levels.pepper,
        ),
        clock=levels.clock,
        store_clock=levels.store_clock,
        recorder=levels.recorder,
        memory_limit_bytes=memory_limit_bytes,
        tenant_entry_limit=tenant_entry_limit,
    )
    calibration = Calibration(
        levels.shared, clock=levels.clock, recorder=levels.recorder, pepper=levels.pepper
    )
    return SemanticLayer(
        levels=levels,
        feed=feed,
        calibration=calibration,
        policy=policy,
        remaining_seconds=remaining_seconds,
        wait_seconds=wait_seconds,
    )
