"""Embedding texts: large requests are cut into pieces that several backends work on."""

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from services.balancer.call import Call
from services.balancer.core.batches import cut
from services.balancer.core.demand import Demand
from services.balancer.core.errors import AllAttemptsFailed, BackendRejectedRequest
from services.balancer.core.names import model_key
from services.balancer.core.requests import EmbeddingRequest, EmbeddingResult
from services.balancer.core.standing import takes_requests
from services.balancer.demands import embedding_demand
from services.balancer.dispatch import Dispatcher
from services.balancer.embed_batches import Batches, Piece, warm_slot_count
from services.balancer.embed_calls import Answer, Calls, Order
from services.balancer.embed_rejections import TextRejected, embed_apart
from services.balancer.fleet import Fleet

__all__ = ["Embedder"]

# So many pieces of a request, or twice the slots, are in the queue at a time: enough for the
# planner to see how much there is, and not so many that one request fills the queue.
_MINIMUM_WINDOW = 16
_AGREEMENT_ROUNDS = 2


class Embedder:
    """Turns texts into vectors.

    Args:
        dispatcher: Gives requests to backends.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._calls = Calls(dispatcher)
        self._batches = Batches(dispatcher, self._calls)

    async def embed(self, request: EmbeddingRequest, call: Call) -> EmbeddingResult:
        """Embeds texts.

        Args:
            request: The texts.
            call: Who asks for it.

        Returns:
            One vector per text, in their order, all of one model digest.

        Raises:
            ServiceError: One of `core.errors`.
        """
        with call:
            embedding = _Embedding(self._dispatcher, self._calls, self._batches, request, call)
            try:
                return await embedding.run()
            except TextRejected as rejected:
                raise _rejection(request, rejected) from rejected
            finally:
                with call.waits:
                    await self._batches.withdraw(embedding.pieces)


class _Embedding:
    """One request.

    Attributes:
        pieces: Pieces that were put into the queue.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        calls: Calls,
        batches: Batches,
        request: EmbeddingRequest,
        call: Call,
    ) -> None:
        self._dispatcher = dispatcher
        self._fleet = dispatcher.fleet
        self._calls = calls
        self._batches = batches
        self._request = request
        self._call = call
        self._model_key = model_key(request.model)
        self._digest = request.routing.model_digest or _common_digest(self._fleet, self._model_key)
        self.pieces: list[Piece] = []

    async def run(self) -> EmbeddingResult:
        request = self._request
        rows = {text: row for row, text in enumerate(dict.fromkeys(request.texts))}
        texts = list(rows)
        whole = self._demand(texts)
        parts = [tuple(texts[each]) for each in self._cut(texts, whole)]
        demands = [whole] if len(parts) == 1 else [self._demand(part) for part in parts]
        pieces = [self._piece(*each) for each in zip(parts, demands, strict=True)]
        answers = dict(enumerate(await self._collect(pieces)))
        await self._agree(parts, answers)
        ordered = [answers[number] for number in range(len(parts))]
        vectors = np.concatenate([answer.vectors for answer in ordered])
        if len(texts) < len(request.texts):
            vectors = vectors[[rows[text] for text in request.texts]]
        return EmbeddingResult(
            vectors=vectors,
            model=ordered[0].model,
            model_digest=ordered[0].model_digest,
            backend_id=ordered[0].backend_id,
            backend_ids=tuple(sorted({answer.backend_id for answer in ordered})),
            attempt_count=max(answer.attempt_count for answer in ordered),
            prompt_token_count=sum(answer.prompt_token_count for answer in ordered),
            duplicate_text_count=len(request.texts) - len(texts),
            decision_ids=_decision_ids(ordered),
        )

    def _cut(self, texts: Sequence[str], demand: Demand) -> list[slice]:
        if len(texts) == 1:
            return [slice(0, 1)]
        limit = self._calls.character_limit(demand, texts)
        lengths = [len(text) for text in texts]
        return cut(lengths, slot_count=self._slot_count, character_count=limit)

    @property
    def _slot_count(self) -> int:
        return warm_slot_count(self._fleet, self._model_key, self._digest)

    def _demand(self, texts: Sequence[str]) -> Demand:
        its, request = self._dispatcher, self._request
        demand = embedding_demand(
            its.fleet, its.clock, request.model, texts, request.routing, its.scheduler.new_id()
        )
        return replace(demand, digest=demand.digest or self._digest)

    def _piece(self, texts: tuple[str, ...], demand: Demand) -> Piece:
        return Piece(
            model=self._request.model,
            demand=demand,
            texts=texts,
            dimension=self._request.dimension,
            call=self._call,
        )

    def _piece_anew(self, texts: tuple[str, ...], answer: Answer) -> Piece:
        """Makes a piece for another backend than the one that has answered."""
        tried = frozenset({answer.backend_id})
        return self._piece(texts, replace(self._demand(texts), tried=tried))

    async def _collect(self, pieces: Sequence[Piece]) -> list[Answer]:
        """Has pieces embedded; returns their answers in the same order."""
        answers: dict[Piece, Answer] = {}
        to_come = deque(pieces)
        waiting: dict[asyncio.Future[Answer], Piece] = {}
        while to_come or waiting:
            window = _MINIMUM_WINDOW
            if len(to_come) + len(waiting) > window:
                window = max(window, 2 * self._slot_count)
            while to_come and len(waiting) < window:
                piece = to_come.popleft()
                waiting[piece.answer] = piece
                self.pieces.append(piece)
                self._batches.submit(piece)
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                piece = waiting.pop(future)
                answers[piece] = await self._result(piece)
        return [answers[piece] for piece in pieces]

    async def _result(self, piece: Piece) -> Answer:
        try:
            return piece.answer.result()
        except BackendRejectedRequest as rejection:
            answers = await embed_apart(partial(self._try, piece), piece.texts, rejection)
            return self._merge(answers)

    async def _try(self, piece: Piece, texts: Sequence[str]) -> Answer:
        """Has some texts of a piece embedded by themselves."""
        # It has waited for its turn already.
        demand = replace(self._demand(texts), arrived_at=piece.demand.arrived_at)
        return await self._calls.make(
            Order(
                model=piece.model,
                demand=demand,
                texts=texts,
                dimension=piece.dimension,
                calls=[self._call],
            )
        )

    async def _agree(self, parts: Sequence[tuple[str, ...]], answers: dict[int, Answer]) -> None:
        """Replaces vectors that are not comparable with the others: of another dimension or model.

        Backends are asked for one digest only, so that this happens only where one lies, or where
        a model was replaced meanwhile.
        """
        for _ in range(_AGREEMENT_ROUNDS):
            odd = self._odd(answers)
            if not odd:
                return
            pieces = [self._piece_anew(parts[number], answers[number]) for number in odd]
            answers.update(zip(odd, await self._collect(pieces), strict=True))
        if self._odd(answers):
            raise self._disagreement(len(answers))

    def _odd(self, answers: dict[int, Answer]) -> list[int]:
        found = Counter[int]()
        for answer in answers.values():
            found[answer.vectors.shape[1]] += len(answer.vectors)
        digest = answers[0].model_digest
        if len(found) == 1 and all(each.model_digest == digest for each in answers.values()):
            return []
        self._digest = self._digest or digest or None
        rightful = self._calls.dimensions.rightful(
            f"{self._model_key}@{digest}",
            self._request.dimension,
            found,
            _described_dimension(self._fleet, self._model_key, digest),
        )
        return [
            number
            for number, answer in answers.items()
            if answer.vectors.shape[1] != rightful or answer.model_digest != digest
        ]

    def _merge(self, answers: Sequence[Answer]) -> Answer:
        if len({answer.vectors.shape[1] for answer in answers}) > 1:
            raise self._disagreement(len(answers))
        return replace(
            answers[0],
            vectors=np.concatenate([answer.vectors for answer in answers]),
            prompt_token_count=sum(answer.prompt_token_count for answer in answers),
            decision_ids=_decision_ids(answers),
        )

    def _disagreement(self, attempt_count: int) -> AllAttemptsFailed:
        return AllAttemptsFailed(
            self._request.model, attempt_count, "backends disagree on the length of the vectors"
        )


def _decision_ids(answers: Sequence[Answer]) -> tuple[str, ...]:
    """Returns the decisions behind answers, in their order; several answers may share one."""
    return tuple(dict.fromkeys(each for answer in answers for each in answer.decision_ids))


def _common_digest(fleet: Fleet, key: str) -> str | None:
    """Returns the one digest that all backends in service have under a name; None if several."""
    digests = {
        state.installed.digest
        for backend in fleet.backends.values()
        if takes_requests(backend.standing)
        and (state := (backend.models or {}).get(key)) is not None
    }
    return digests.pop() if len(digests) == 1 else None


def _described_dimension(fleet: Fleet, key: str, digest: str) -> int:
    """Returns how long a model's vectors are by its description; 0 where it does not say."""
    states = [(backend.models or {}).get(key) for backend in fleet.backends.values()]
    return max(
        (
            state.installed.description.embedding_dimension
            for state in states
            if state is not None and state.installed.digest == digest
        ),
        default=0,
    )


def _rejection(request: EmbeddingRequest, rejected: TextRejected) -> BackendRejectedRequest:
    index = request.texts.index(rejected.text)
    return BackendRejectedRequest(request.model, rejected.message, text_index=index)
