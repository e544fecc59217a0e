"""One attempt at a backend: it ends once, whatever happens to it."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Protocol, Self

from opentelemetry.trace import SpanContext

from services.balancer.attempt_span import AttemptSpan
from services.balancer.backend import ModelState
from services.balancer.call import Call, waiting
from services.balancer.core.demand import Demand
from services.balancer.core.errors import StreamInterrupted
from services.balancer.core.failures import AttemptFailed, FailureKind
from services.balancer.core.outcomes import AttemptOutcome
from services.balancer.core.plan import Reason
from services.balancer.core.prefixes import Fingerprint
from services.balancer.core.requests import (
    Completion,
    Delta,
    EmbeddingReply,
    GenerationRequest,
    Operation,
)
from services.balancer.core.snapshot import Residency
from services.balancer.core.stalls import LIMITS
from services.balancer.equipment import Equipment, deadline_is_spent
from services.balancer.ports import ModelServer
from services.balancer.tickets import Grant

__all__ = ["Attempt", "Series"]

# Less than this is no load: what a server needs to find a model that is in memory.
_SHORTEST_LOAD_SECONDS = 0.05
_LONGEST_ZOMBIE_SECONDS = 30.0
# Vectors come all at once or not at all, and on processors that others share, late at times.
_EMBEDDING_DOUBLINGS = 2
_TIMEOUTS = (FailureKind.TIMEOUT, FailureKind.STALLED)


class Series(Protocol):
    """The attempts of a request, as one of them sees them.

    Attributes:
        equipment: What all attempts share.
        operation: What is asked for.
        embeds: Whether that is vectors.
        queue_seconds: How long the request has waited in the queue so far.
        load_seconds: How long it has waited for models to be loaded.
        last_failure: What the attempt before said; empty at the first.
        calls: The calls that wait for it.
        beside: The attempt beside which a second one is made, if that is what this is.
    """

    equipment: Equipment
    operation: Operation
    embeds: bool
    queue_seconds: float
    load_seconds: float
    last_failure: str
    calls: Sequence[Call]
    beside: SpanContext | None

    def consider(self, attempt: "Attempt", failure: AttemptFailed) -> None:
        """Returns where another attempt may make a failure good; raises what the caller sees."""
        ...


class Attempt:
    """One attempt; a context manager that ends it.

    Args:
        attempts: The series it belongs to.
        grant: The slot, and why that one.
        number: Counts the attempts of the series from 1.
    """

    def __init__(self, attempts: Series, grant: Grant, number: int) -> None:
        self._series = attempts
        self._its = attempts.equipment
        self._grant = grant
        self._occupancy = grant.occupancy
        self.number = number
        self.backend = grant.backend
        self.server: ModelServer = self._its.servers[grant.backend.id]
        self.model_name = grant.model.names.get(
            grant.occupancy.demand.model_key, grant.model.installed.name
        )
        self.model_digest = grant.model.installed.digest
        self.described_dimension = grant.model.installed.description.embedding_dimension
        self.reason = grant.reason
        self.decision_id = grant.decision_id
        self.queue_seconds = attempts.queue_seconds
        self.predicted_first_token_seconds = (
            attempts.queue_seconds + attempts.load_seconds + grant.predicted_first_token_seconds
        )
        self.failure_before = attempts.last_failure
        self.started = False
        self.resumable = False
        self.emitted_character_count = 0
        self._succeeded = False
        self._added_seconds = 0.0

    @property
    def _first_token_limit_seconds(self) -> float:
        its, model = self._its, self._grant.model
        if model.residency is not Residency.WARM:
            return its.patience.first_token_seconds
        return its.patience.first_token(
            self._grant.predicted_first_token_seconds + self._added_seconds,
            its.overruns.count(self.backend.id, model.placement_key)
            + (_EMBEDDING_DOUBLINGS if self._series.embeds else 0),
            proven=its.overruns.proven(self.backend.id, model.placement_key),
        )

    @property
    def model(self) -> ModelState:
        """The model there."""
        return self._grant.model

    @property
    def fell_back(self) -> bool:
        """Whether the backend was chosen for want of one that is in order."""
        return self.reason is Reason.ROUND_ROBIN_FALLBACK

    @property
    def span_context(self) -> SpanContext:
        """The ids of its span."""
        return self._span.context

    def take_along(self, demands: Sequence[Demand], calls: Sequence[Call]) -> None:
        """Adds requests for vectors of the same model that are out of the queue: they share a slot.

        Args:
            demands: What they ask for.
            calls: All calls that are served now.
        """
        its, occupancy, now = self._its, self._occupancy, self._its.clock.monotonic()
        self._span.serve(calls)
        for demand in demands:
            its.scheduler.shares.serve(demand, now)
        tokens = sum(demand.prompt_token_count for demand in demands)
        rate = its.fleet.estimates.prefill_rate(
            self.backend.id, self._grant.model.placement_key, now
        )
        self._added_seconds = tokens / rate
        occupancy.demand = replace(
            occupancy.demand,
            prompt_token_count=occupancy.demand.prompt_token_count + tokens,
            text_count=occupancy.demand.text_count + sum(each.text_count for each in demands),
        )
        occupancy.predicted_first_token_at += self._added_seconds
        occupancy.predicted_end += self._added_seconds
        self._grant.model.view = None

    def generate(
        self, request: GenerationRequest, *, continuation: str
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Has the backend generate text.

        Args:
            request: What to generate.
            continuation: The beginning of the answer, where another backend has begun it.
        """
        model, its = self._grant.model, self._its
        rate = its.fleet.estimates.decode_rate(
            self.backend.id, model.placement_key, self._occupancy.active_count, self._began_at
        )
        return self.server.generate(
            request,
            model_name=self.model_name,
            headers=self._span.headers,
            keep_alive=its.keep_alive_of(model),
            context_token_count=model.context_token_count or None,
            continuation=continuation,
            first_token_limit_seconds=self._first_token_limit_seconds,
            stall_limit_seconds=its.patience.stall(rate),
        )

    async def embed(self, texts: Sequence[str], dimension: int | None) -> EmbeddingReply:
        """Has the backend turn texts into vectors."""
        model = self._grant.model
        context = None if model.installed.only_embeds else model.context_token_count or None
        with waiting(self._series.calls):
            return await self.server.embed(
                texts,
                model_name=self.model_name,
                headers=self._span.headers,
                keep_alive=self._its.keep_alive_of(model),
                dimension=dimension,
                context_token_count=context,
                limit_seconds=self._first_token_limit_seconds,
            )

    def __enter__(self) -> Self:
        self._began_at = self._its.clock.monotonic()
        try:
            self._begin()
        except BaseException:
            # Else nobody would: what has not begun does not end.
            self._its.scheduler.release(self._grant)
            raise
        return self

    def _begin(self) -> None:
        self.backend.request_count += 1
        series = self._series
        self._span = AttemptSpan(
            self._its,
            series.operation,
            self._grant,
            model_name=self.model_name,
            number=self.number,
            calls=series.calls,
            beside=series.beside,
        )
        self._its.metrics.count("balancer_routing_decisions_total", self.reason.value)
        self._show_load()

    def __exit__(
        self,
        _type: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> bool:
        failed = error if isinstance(error, AttemptFailed) and not self._succeeded else None
        self._give_back(abandoned=error is not None and failed is None and not self._succeeded)
        if not self._succeeded:
            # Nobody has counted the tokens of an answer that broke off.
            self._charge(self._occupancy.produced_count)
        if failed is not None:
            self._its.effects.note(
                self.backend, self._grant.model, failed, self._occupancy.began_at
            )
            if failed.kind is FailureKind.TIMEOUT:
                self._its.overruns.note(self.backend.id, self._grant.model.placement_key)
        self._report(self._outcome(error), failed if failed is not None else error)
        if failed is not None:
            self._series.consider(self, failed)
            return True
        return False

    def _give_back(self, *, abandoned: bool) -> None:
        """Gives the slot back, at once or when the backend must have noticed that we left."""
        occupancy, now = self._occupancy, self._its.clock.monotonic()
        until = min(occupancy.predicted_first_token_at, now + _LONGEST_ZOMBIE_SECONDS)
        if abandoned and not self.started and self._was_silent(now):
            self._its.effects.suspect(self.backend, self._grant.model)
        if not abandoned or self.started or until <= now or self._series.embeds:
            self._its.scheduler.release(self._grant)
            return
        self._its.fleet.entomb(occupancy, until)
        asyncio.get_running_loop().call_later(until - now, self._its.scheduler.release, self._grant)

    def _charge(self, token_count: int) -> None:
        """Has the tenant be served later for what it was given, wanted to the end or not."""
        its, tenant = self._its, self._occupancy.demand.tenant
        its.scheduler.shares.charge(
            tenant, output_token_count=token_count, now=its.clock.monotonic()
        )

    def _was_silent(self, now: float) -> bool:
        """Tells whether a caller has left whom the backend kept waiting for suspiciously long."""
        limit = self._first_token_limit_seconds * LIMITS.suspect_ratio
        return (
            self._grant.model.residency is Residency.WARM and now - self._occupancy.began_at > limit
        )

    def note_first_token(self, prefix: Fingerprint) -> None:
        """Notes that the backend has produced its first token, so that it has read the prompt."""
        self.started = True
        its, occupancy, now = self._its, self._occupancy, self._its.clock.monotonic()
        occupancy.first_token_at = occupancy.progressed_at = now
        seconds = now - self._began_at
        backend = self.backend
        backend.first_token_seconds = backend.first_token_seconds.add(seconds, now)
        demand, placement_key = occupancy.demand, self._grant.model.placement_key
        self._note_in_time(seconds)
        its.effects.note_start(
            occupancy, self._grant.predicted_first_token_seconds, self._first_token_limit_seconds
        )
        its.fleet.prefixes.note(backend.id, placement_key, prefix, demand.prompt_token_count)
        its.metrics.observe("balancer_time_to_first_token_seconds", seconds, backend.id)
        self._score_predictions(now)
        self._span.note_first_token(seconds)

    def _score_predictions(self, now: float) -> None:
        """Notes how far off it was when the first token was predicted to come, either way."""
        grant, metrics = self._grant, self._its.metrics
        slot_error = abs(now - self._began_at - grant.predicted_first_token_seconds)
        metrics.observe("balancer_first_token_prediction_error_seconds", slot_error)
        if self.number == 1 and grant.foreseen_first_token_at is not None:
            arrival_error = abs(now - grant.foreseen_first_token_at)
            metrics.observe("balancer_arrival_prediction_error_seconds", arrival_error)

    def _note_in_time(self, seconds: float) -> None:
        """Notes after how long something came; what needed more than the usual limit still does."""
        its = self._its
        its.overruns.prove(self.backend.id, self._grant.model.placement_key)
        if seconds <= its.patience.first_token(self._grant.predicted_first_token_seconds):
            its.overruns.forgive(self.backend.id, self._grant.model.placement_key)

    def note_progress(self) -> None:
        """Notes that the backend has produced another token or a few."""
        occupancy = self._occupancy
        occupancy.produced_count += 1
        occupancy.progressed_at = self._its.clock.monotonic()

    def succeed_with_text(self, completion: Completion, character_count: int) -> None:
        """Notes that the answer is complete.

        Args:
            completion: The backend's last word.
            character_count: Length of the prompt; 0 where it says nothing of its tokens.
        """
        seconds = self._succeed(completion.prompt_token_count, completion.load_seconds)
        its, tokens = self._its, completion.output_token_count
        its.fleet.note_generated(self._occupancy, completion, seconds)
        self._charge(tokens)
        if completion.prompt_token_count and character_count:
            its.fleet.estimates.note_characters(
                self._grant.model.placement_key,
                character_count=character_count,
                token_count=completion.prompt_token_count,
                now=its.clock.monotonic(),
            )
        its.metrics.count("balancer_tokens_total", self.backend.id, "output", amount=tokens)
        if tokens:
            its.metrics.observe(
                "balancer_time_per_output_token_seconds",
                completion.output_seconds / tokens,
                self.backend.id,
            )
        self._span.note_completion(completion)

    def succeed_with_vectors(self, reply: EmbeddingReply, character_count: int) -> None:
        """Notes that the vectors are there.

        Args:
            reply: The vectors.
            character_count: Length of the texts.
        """
        seconds = self._succeed(reply.prompt_token_count, reply.load_seconds)
        text_count = len(reply.vectors)
        fleet, now = self._its.fleet, self._its.clock.monotonic()
        self._note_in_time(seconds)
        fleet.note_embedded(
            self._occupancy,
            text_count=text_count,
            token_count=reply.prompt_token_count,
            seconds=max(0.0, seconds - reply.load_seconds),
        )
        if reply.prompt_token_count:
            fleet.estimates.note_characters(
                self._grant.model.placement_key,
                character_count=character_count,
                token_count=reply.prompt_token_count,
                now=now,
            )
        self._span.note_vectors(reply)

    def _succeed(self, prompt_token_count: int, load_seconds: float) -> float:
        self._succeeded = True
        its, backend_id = self._its, self.backend.id
        seconds = its.clock.monotonic() - self._began_at
        operation = self._series.operation.value
        its.metrics.observe("balancer_request_duration_seconds", seconds, backend_id)
        its.metrics.observe("balancer_operation_duration_seconds", seconds, operation)
        its.metrics.count("balancer_tokens_total", backend_id, "input", amount=prompt_token_count)
        if load_seconds >= _SHORTEST_LOAD_SECONDS:
            its.metrics.observe("balancer_model_load_seconds", load_seconds)
            its.metrics.count("balancer_backend_loads_total", backend_id)
        return seconds

    def _outcome(self, error: BaseException | None) -> AttemptOutcome:
        if self._succeeded:
            return AttemptOutcome.SUCCESS
        match error:
            case AttemptFailed(kind=FailureKind.REJECTED):
                return AttemptOutcome.REJECTED
            case AttemptFailed():
                timed_out = error.kind in _TIMEOUTS
                return AttemptOutcome.TIMEOUT if timed_out else AttemptOutcome.ERROR
            case asyncio.CancelledError() | GeneratorExit():
                spent = deadline_is_spent()
                return AttemptOutcome.TIMEOUT if spent else AttemptOutcome.CANCELLED
            case StreamInterrupted():
                # The caller does not read.
                return AttemptOutcome.CANCELLED
            case _:
                return AttemptOutcome.ERROR

    def _report(self, outcome: AttemptOutcome, error: BaseException | None) -> None:
        self._its.metrics.count("balancer_requests_total", self.backend.id, outcome.value)
        self._show_load()
        self._span.end(outcome, error)

    def _show_load(self) -> None:
        backend = self.backend
        # Where another of the same id has come since, its own attempts are shown.
        if self._its.fleet.backends.get(backend.id, backend) is backend:
            self._its.metrics.set_gauge(
                "balancer_backend_inflight", backend.in_flight_count, backend.id
            )
