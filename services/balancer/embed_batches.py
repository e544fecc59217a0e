"""Pieces of requests that wait for the same model travel together when a slot falls free.

Each piece waits in the queue by itself, with its own tenant, priority and deadline. Whichever is
given a slot takes others along that would be served next, in the queue's own order; each tenant
is charged for its own texts. A piece that finds a slot free goes alone and at once, so that nobody
waits for company.
"""

import asyncio
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from services.balancer.attempt import Attempt
from services.balancer.call import Call
from services.balancer.core.batches import (
    MAXIMUM_TEXTS,
    Limits,
    join,
    token_shares,
)
from services.balancer.core.demand import Demand, Priority
from services.balancer.core.errors import BackendRejectedRequest, DeadlineUnreachable, QueueFull
from services.balancer.core.fairness import service_order
from services.balancer.core.snapshot import Residency
from services.balancer.core.standing import takes_requests
from services.balancer.dispatch import Dispatcher
from services.balancer.embed_calls import Answer, Calls, Order
from services.balancer.fleet import Fleet
from services.common.errors import ServiceError

__all__ = ["Batches", "Piece", "warm_slot_count"]

_Key = tuple[str, str | None, int | None, Priority]


def warm_slot_count(fleet: Fleet, model_key: str, digest: str | None) -> int:
    """Returns how many slots there are for a model where it is in memory, at least 1."""
    count = 0
    for backend in fleet.backends.values():
        state = (backend.models or {}).get(model_key)
        if (
            state is not None
            and state.residency is Residency.WARM
            and digest in (None, state.installed.digest)
            and takes_requests(backend.standing)
        ):
            count += state.slot_count
    return max(count, 1)


@dataclass(slots=True, kw_only=True, eq=False)
class Piece:
    """Texts of one request that stay together.

    Attributes:
        model: The model as the caller wrote it.
        demand: What the planner sees.
        texts: The texts, each once.
        dimension: Length to cut the vectors to; None leaves them whole.
        call: Who asks for it.
        answer: Its vectors, in the order of the texts.
        batch: What it travels with.
    """

    model: str
    demand: Demand
    texts: tuple[str, ...]
    dimension: int | None
    call: Call
    answer: asyncio.Future[Answer] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    batch: "_Batch | None" = None

    @property
    def key(self) -> _Key:
        """What pieces must have in common to travel together."""
        demand = self.demand
        return (demand.model_key, demand.digest, self.dimension, demand.priority)


@dataclass(slots=True, eq=False)
class _Batch:
    """Pieces that travel together.

    Attributes:
        members: Those whose callers still wait; at first the one whose place in the queue it is.
        joined: All that have joined it.
        calls: Those that have asked for these, each once.
        texts: Their texts, each once.
        task: Carries it.
    """

    members: list[Piece]
    joined: list[Piece] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    texts: Sequence[str] = ()
    task: asyncio.Task[None] | None = None

    def take_in(self, piece: Piece) -> None:
        """Notes that a piece has joined."""
        self.joined.append(piece)
        if piece.call not in self.calls:
            self.calls.append(piece.call)


class Batches:
    """Carries pieces to backends.

    Args:
        dispatcher: Gives requests to backends.
        calls: Makes calls for vectors.
    """

    def __init__(self, dispatcher: Dispatcher, calls: Calls) -> None:
        self._fleet = dispatcher.fleet
        self._scheduler = dispatcher.scheduler
        self._clock = dispatcher.clock
        self._calls = calls
        self._waiting: dict[_Key, dict[int, Piece]] = {}

    def submit(self, piece: Piece) -> None:
        """Puts a piece into the queue; its `answer` tells what becomes of it."""
        self._begin([piece], may_grow=True)

    async def withdraw(self, pieces: Iterable[Piece]) -> None:
        """Takes pieces back whose caller no longer wants them; returns when their slots are free.

        Calls go on as long as anybody wants some of their texts.
        """
        ending: set[asyncio.Task[None]] = set()
        for piece in pieces:
            batch = piece.batch
            if piece.answer.done():
                _hear(piece.answer)
            elif batch is not None:
                ending |= self._remove(piece, batch)
        if ending:
            await asyncio.wait(ending)

    def _remove(self, piece: Piece, batch: _Batch) -> set[asyncio.Task[None]]:
        self._forget(piece)
        piece.answer.cancel()
        batch.members.remove(piece)
        if batch.members or batch.task is None:
            return set()
        batch.task.cancel()
        return {batch.task}

    def _begin(self, members: list[Piece], *, may_grow: bool) -> None:
        batch = _Batch(members)
        for piece in members:
            piece.batch = batch
        batch.task = asyncio.create_task(self._carry(batch, may_grow=may_grow))

    async def _carry(self, batch: _Batch, *, may_grow: bool) -> None:
        first = batch.members[0]
        demand = first.demand
        for piece in batch.members:
            batch.take_in(piece)
        batch.texts = list(dict.fromkeys(text for piece in batch.members for text in piece.texts))
        if not may_grow:
            demand = replace(demand, id=self._scheduler.new_id())
        order = Order(
            model=first.model,
            demand=demand,
            texts=batch.texts,
            dimension=first.dimension,
            calls=batch.calls,
        )
        enlarge = None
        if may_grow:
            # Only now, so that nobody is taken along who has not looked for a slot yet.
            self._waiting.setdefault(first.key, {})[first.demand.id] = first
            enlarge = partial(self._gather, batch, first)
        try:
            answer = await self._calls.make(order, enlarge)
        except BackendRejectedRequest as error:
            self._separate(batch, error)
        except ServiceError as error:
            self._fail(batch, first, error)
        except Exception as error:  # noqa: BLE001 - whoever waits for the answer is to hear of it
            _tell(batch.members, error)
        else:
            self._hand_out(batch, answer)
        finally:
            self._forget(first)

    def _forget(self, piece: Piece) -> None:
        waiting = self._waiting.get(piece.key)
        if waiting is not None and waiting.get(piece.demand.id) is piece:
            del waiting[piece.demand.id]
            if not waiting:
                del self._waiting[piece.key]

    # Who comes along.

    def _gather(self, batch: _Batch, first: Piece, attempt: Attempt) -> Sequence[str]:
        """Takes along who would be served next; returns the texts of all."""
        self._forget(first)
        found = self._next_in_line(first, attempt)
        if found:
            limits = self._limits(first, found)
            places, batch.texts = join(first.texts, [each.texts for each in found], limits)
            taken = [found[place] for place in places]
            for piece in taken:
                self._take_along(batch, piece, attempt)
            attempt.take_along([piece.demand for piece in taken], batch.calls)
        return batch.texts

    def _next_in_line(self, first: Piece, attempt: Attempt) -> list[Piece]:
        waiting = self._waiting.get(first.key)
        if not waiting:
            return []
        demands = [
            piece.demand
            for number, piece in waiting.items()
            if self._scheduler.is_waiting(number) and attempt.backend.id not in piece.demand.tried
        ]
        now = self._clock.monotonic()
        limit = self._fleet.policy.walk_limit
        ordered = service_order(
            demands, self._scheduler.shares, now, limit=limit, model_limit=limit
        )
        return [waiting[demand.id] for demand in ordered]

    def _limits(self, first: Piece, found: list[Piece]) -> Limits:
        """Each slot takes its share of those that wait, since others fall free soon."""
        demand = first.demand
        slot_count = warm_slot_count(self._fleet, demand.model_key, demand.digest)
        text_count = len(first.texts) + sum(len(each.texts) for each in found)
        return Limits(
            text_count=min(MAXIMUM_TEXTS, math.ceil(text_count / slot_count)),
            character_count=self._calls.character_limit(demand, first.texts),
        )

    def _take_along(self, batch: _Batch, piece: Piece, attempt: Attempt) -> None:
        self._forget(piece)
        piece.call.note_queued(self._scheduler.withdraw(piece.demand.id, attempt.model))
        piece.call.note_attempt(attempt.number, fell_back=attempt.fell_back)
        own = piece.batch
        if own is not None and own.task is not None:
            # Its own way ends here: how long that took is noted.
            own.calls.clear()
            own.task.cancel()
        piece.batch = batch
        batch.members.append(piece)
        batch.take_in(piece)

    # What becomes of it.

    def _hand_out(self, batch: _Batch, answer: Answer) -> None:
        if len(batch.joined) == 1:
            # It has asked for each of these texts, in this order.
            only = batch.joined[0].answer
            if not only.done():
                only.set_result(answer)
            return
        rows = {text: row for row, text in enumerate(batch.texts)}
        shares = token_shares(
            answer.prompt_token_count, batch.texts, [each.texts for each in batch.joined]
        )
        for piece, share in zip(batch.joined, shares, strict=True):
            if not piece.answer.done():
                vectors = answer.vectors[[rows[text] for text in piece.texts]]
                piece.answer.set_result(replace(answer, vectors=vectors, prompt_token_count=share))

    def _separate(self, batch: _Batch, error: BackendRejectedRequest) -> None:
        """Tries halves of a batch by themselves, so that only who is at fault fails."""
        members = batch.members
        if len(members) == 1:
            _tell(members, error)
            return
        middle = len(members) // 2
        for half in (members[:middle], members[middle:]):
            if half:
                self._begin(half, may_grow=False)

    def _fail(self, batch: _Batch, first: Piece, error: ServiceError) -> None:
        """Fails all; but whose place it was may have left, or may only have been impatient."""
        own_fault = isinstance(error, DeadlineUnreachable | QueueFull)
        if not own_fault and first in batch.members:
            _tell(batch.members, error)
            return
        for piece in batch.members:
            if piece is first:
                _tell([piece], error)
            else:
                self.submit(piece)


def _hear(answer: asyncio.Future[Answer]) -> None:
    """Takes note of an error that nobody is left to hear, or it would be logged as forgotten."""
    if not answer.cancelled():
        answer.exception()


def _tell(pieces: Iterable[Piece], error: Exception) -> None:
    for piece in pieces:
        if not piece.answer.done():
            piece.answer.set_exception(error)
