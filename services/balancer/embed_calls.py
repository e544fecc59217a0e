"""Calls for vectors: backends are tried until one serves, a second one too if that is late."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from services.balancer.attempt import Attempt
from services.balancer.attempts import Attempts
from services.balancer.call import Call
from services.balancer.core.batches import MAXIMUM_CHARACTERS, Dimensions
from services.balancer.core.budgets import RatioBudget
from services.balancer.core.demand import Demand
from services.balancer.core.failures import AttemptFailed, FailureKind
from services.balancer.core.hedging import CallDurations, character_limit, work_units
from services.balancer.core.outcomes import HedgeOutcome
from services.balancer.core.requests import Operation, Vectors
from services.balancer.core.snapshot import Residency
from services.balancer.core.standing import takes_requests
from services.balancer.dispatch import Dispatcher
from services.common.errors import ServiceError

__all__ = ["Answer", "Calls", "Order"]

_LONGEST_CALL_SECONDS = 1.0
_HEDGE_RATIO, _HEDGE_BURST = 0.05, 1
# A hedge is for a slot that is free: longer than other replicas take to confirm it, it does not
# wait.
_SLOT_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Texts for one call.

    Attributes:
        model: The model as the caller wrote it.
        demand: What the planner sees.
        texts: The texts, each once.
        dimension: Length to cut the vectors to; None leaves them whole.
        calls: Those who wait for them; others may join.
    """

    model: str
    demand: Demand
    texts: Sequence[str]
    dimension: int | None
    calls: Sequence[Call]

    @property
    def character_count(self) -> int:
        """Length of all texts."""
        return sum(map(len, self.texts))

    @property
    def units(self) -> float:
        """How much work it is."""
        return work_units(len(self.texts), self.character_count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Vectors, with who made them.

    Attributes:
        vectors: One row per text.
        prompt_token_count: Tokens read.
        backend_id: Who made them.
        model: Full name of the model.
        model_digest: Its digest; empty where the backend was never reached before.
        attempt_count: Backends tried one after the other.
        decision_ids: The planner's decisions that sent the texts there.
    """

    vectors: Vectors
    prompt_token_count: int
    backend_id: str
    model: str
    model_digest: str
    attempt_count: int
    decision_ids: tuple[str, ...]


class _Overtaken(asyncio.CancelledError):
    """Cancels an attempt, and is counted as such, because a second one has answered."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


class _SecondAttempts(Attempts):
    """The attempt beside one that is late: if it fails, nothing is lost and nothing repeated."""

    def consider(self, attempt: Attempt, failure: AttemptFailed) -> None:  # noqa: ARG002
        """Raises the failure, of which nobody else is to hear."""
        raise failure


class Calls:
    """Makes calls for vectors.

    Args:
        dispatcher: Gives requests to backends.

    Attributes:
        dimensions: How long the vectors of each model are.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._fleet = dispatcher.fleet
        self._clock = dispatcher.clock
        self._durations = CallDurations()
        self._budget = RatioBudget(ratio=_HEDGE_RATIO, burst=_HEDGE_BURST)
        self.dimensions = Dimensions()

    def character_limit(self, demand: Demand, texts: Sequence[str]) -> float:
        """Returns how many characters may travel together.

        A server reads one text after the other. Where that is slow, company saves next to nothing,
        and whoever comes next waits for all of it.

        Args:
            demand: What the planner sees of the texts.
            texts: Texts like those that are to travel.
        """
        placement_key = f"{demand.model_key}@{demand.digest}"
        units = self._durations.units_within(placement_key, _LONGEST_CALL_SECONDS)
        mean_length = max(sum(map(len, texts)) / len(texts), 1.0)
        return min(MAXIMUM_CHARACTERS, character_limit(units, mean_length))

    async def make(
        self, order: Order, enlarge: Callable[[Attempt], Sequence[str]] | None = None
    ) -> Answer:
        """Makes a call.

        Args:
            order: The texts.
            enlarge: Called when the call has its first slot; returns the texts to embed.

        Raises:
            ServiceError: One of `core.errors`.
        """
        attempts = self._dispatcher.attempts(
            Operation.EMBED, order.model, order.demand, order.calls
        )
        while True:
            try:
                with await attempts.next() as attempt:
                    if enlarge is not None and attempt.number == 1:
                        order = replace(order, texts=enlarge(attempt))
                    return await self._answer(order, attempt)
            except _Overtaken as overtaken:
                return overtaken.answer

    async def _answer(self, order: Order, attempt: Attempt) -> Answer:
        """Waits for an attempt, beside which another is made when it is late."""
        began_at = self._clock.monotonic()
        self._budget.note_request(began_at)
        late_after = self._durations.late_after(self._placement_key(attempt, order), order.units)
        if late_after is None:
            return await self._embed(order, attempt)
        first = asyncio.create_task(self._embed(order, attempt))
        try:
            await asyncio.wait([first], timeout=late_after)
            if not first.done():
                await self._hedge(order, attempt, first, began_at)
            return await first
        finally:
            await _end(first)

    async def _hedge(
        self, order: Order, attempt: Attempt, first: asyncio.Task[Answer], began_at: float
    ) -> None:
        """Asks a second backend; returns when the first one has answered, or should be awaited."""
        free_ids = self._free_beside(attempt, order.demand)
        if not free_ids or not self._budget.try_spend(self._clock.monotonic()):
            self._count(HedgeOutcome.UNSPENT)
            return
        demand = replace(
            order.demand,
            id=self._dispatcher.scheduler.new_id(),
            tried=frozenset(self._fleet.backends.keys() - free_ids),
            maximum_wait_seconds=None,
        )
        second = asyncio.create_task(self._embed_now(replace(order, demand=demand), attempt))
        outcome = HedgeOutcome.LOST
        try:
            await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
            if not first.done() and (answer := await second) is not None:
                outcome = HedgeOutcome.WON
                self._note_overtaken(order, attempt, began_at, answer)
                raise _Overtaken(answer)
        finally:
            self._count(outcome)
            await _end(second)

    def _free_beside(self, attempt: Attempt, demand: Demand) -> set[str]:
        """Finds who else has the very model in memory and a slot for it that nobody uses."""
        free_ids = set()
        for backend in self._fleet.backends.values():
            state = (backend.models or {}).get(demand.model_key)
            if (
                backend is not attempt.backend
                and state is not None
                and backend.id not in demand.tried
                and takes_requests(backend.standing)
                and state.residency is Residency.WARM
                and state.installed.digest == attempt.model_digest
                and len(state.occupancies) < state.slot_count
            ):
                free_ids.add(backend.id)
        return free_ids

    async def _embed_now(self, order: Order, first: Attempt) -> Answer | None:
        its = self._dispatcher.equipment
        attempts = _SecondAttempts(
            its, Operation.EMBED, order.model, order.demand, order.calls, beside=first.span_context
        )
        with suppress(AttemptFailed, ServiceError, TimeoutError):
            async with asyncio.timeout(_SLOT_SECONDS) as patience:
                with await attempts.next() as attempt:
                    patience.reschedule(None)
                    return await self._embed(order, attempt)
        return None

    async def _embed(self, order: Order, attempt: Attempt) -> Answer:
        began_at = self._clock.monotonic()
        reply = await attempt.embed(order.texts, order.dimension)
        placement_key, backend_id = self._placement_key(attempt, order), attempt.backend.id
        dimension = reply.vectors.shape[1]
        self.dimensions.note(placement_key, order.dimension, backend_id, dimension)
        described = attempt.described_dimension
        if self.dimensions.is_wrong(placement_key, order.dimension, dimension, described):
            raise AttemptFailed(
                FailureKind.BROKEN_REPLY,
                f"vectors of dimension {dimension}, unlike those of most replies",
                status_code=200,
            )
        attempt.succeed_with_vectors(reply, order.character_count)
        seconds = self._clock.monotonic() - began_at - reply.load_seconds
        self._durations.note(placement_key, order.units, max(seconds, 0.0))
        return Answer(
            vectors=reply.vectors,
            prompt_token_count=reply.prompt_token_count,
            backend_id=backend_id,
            model=attempt.model_name,
            model_digest=attempt.model_digest,
            attempt_count=attempt.number,
            decision_ids=(attempt.decision_id,),
        )

    def _note_overtaken(
        self, order: Order, attempt: Attempt, began_at: float, answer: Answer
    ) -> None:
        """Learns from a call that was given up: it took so long at least.

        Else a slow backend whose calls are always overtaken would never be known as slow, and what
        is late would be what is usual among the quick ones.
        """
        now, placement_key = self._clock.monotonic(), self._placement_key(attempt, order)
        self._durations.note(placement_key, order.units, now - began_at)
        self._fleet.estimates.note_texts(
            attempt.backend.id,
            placement_key,
            token_count=answer.prompt_token_count,
            text_count=len(order.texts),
            seconds=now - began_at,
            now=now,
        )

    def _placement_key(self, attempt: Attempt, order: Order) -> str:
        return self._fleet.model_of(attempt.backend, order.demand.model_key).placement_key

    def _count(self, outcome: HedgeOutcome) -> None:
        self._dispatcher.equipment.metrics.count("balancer_hedges_total", outcome.value)


async def _end(task: asyncio.Task[Answer] | asyncio.Task[Answer | None]) -> None:
    """Sees to it that a task has ended; what it raised has been heard, or is of no interest."""
    if not task.done():
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        task.exception()
