"""One attempt at a backend, and the series of attempts that a request is entitled to.

    attempts = dispatcher.attempts(...)
    while True:
        with attempts.next() as attempt:
            ...                          # AttemptFailed may be raised here
            attempt.succeed_with_...(...)

Return:
        # Reached only after a failure that another backend may make good.

Whatever happens inside the block, the attempt ends once: its work is taken off the backend, its
outcome counted, its span closed.
"""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import NoReturn, Self

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind

from services.balancer.core.errors import (
    AllAttemptsFailed,
    BackendRejectedRequest,
    ModelCapabilityMissing,
    ModelNotFound,
    StreamInterrupted,
)
from services.balancer.core.failures import AttemptFailed, FailureKind
from services.balancer.core.requests import Completion, EmbeddingReply, Operation
from services.balancer.core.selection import Decision, Reason, Refusal, RefusalReason, Wanted
from services.balancer.fleet import Backend, Fleet
from services.balancer.ports import ModelServer
from services.common.clock import Clock
from services.common.interceptors import remaining_seconds
from services.common.metrics import Metrics
from services.common.tracing import PROPAGATOR, mark_failed

__all__ = ["Attempt", "Attempts", "deadline_is_spent"]

# Less than this is no load: what a server needs to find a model that is in memory.
_SHORTEST_LOAD_SECONDS = 0.05
_SPAN_OPERATIONS = {
    Operation.CHAT: "chat",
    Operation.GENERATE: "text_completion",
    Operation.EMBED: "embeddings",
}
_TIMEOUTS = (FailureKind.TIMEOUT, FailureKind.STALLED)


def deadline_is_spent() -> bool:
    """Tells whether the running call has no time left."""
    remaining = remaining_seconds()
    return remaining is not None and remaining <= 0.005


class Attempt:
    """One attempt; a context manager that ends it.

    Args:
        attempts: The series it belongs to.
        decision: Which backend, and why.
        number: Counts the attempts of the series from 1.
    """

    def __init__(self, attempts: "Attempts", decision: Decision, number: int) -> None:
        self._its = attempts
        self._decision = decision
        self.number = number
        self.backend: Backend = attempts.fleet.backends[decision.backend_id]
        self.server: ModelServer = attempts.servers[decision.backend_id]
        model = decision.model
        self.model_name = model.name if model is not None else attempts.wanted.model_key
        self.model_digest = model.digest if model is not None else ""
        self.reason = decision.reason
        self.started = False
        self.emitted_character_count = 0
        self._succeeded = False
        self._span: Span = trace.INVALID_SPAN

    @property
    def headers(self) -> dict[str, str]:
        """The trace context that goes to the backend."""
        carrier: dict[str, str] = {}
        PROPAGATOR.inject(carrier, trace.set_span_in_context(self._span))
        return carrier

    def __enter__(self) -> Self:
        its = self._its
        self._began_at = its.clock.monotonic()
        its.fleet.begin_attempt(self.backend, its.wanted)
        self._texts_ahead = self.backend.outstanding.text_count
        self._span = self._start_span()
        its.metrics.count("balancer_routing_decisions_total", self.reason.value)
        self._show_load()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> bool:
        self._its.fleet.end_attempt(self.backend, self._its.wanted)
        if isinstance(error, AttemptFailed) and not self._succeeded:
            self._its.fleet.note_failure(self.backend, self._its.wanted, error)
            self._mark_failed(error)
        self._report(self._outcome(error))
        if isinstance(error, AttemptFailed) and not self._succeeded:
            self._its.consider(self, error)
            return True
        return False

    def note_first_token(self) -> None:
        """Notes that the backend has produced its first token."""
        self.started = True
        seconds = self._its.clock.monotonic() - self._began_at
        self._its.fleet.note_first_token(self.backend, seconds)
        self._its.metrics.observe("balancer_time_to_first_token_seconds", seconds, self.backend.id)
        self._span.set_attribute("gen_ai.response.time_to_first_chunk", seconds)

    def succeed_with_text(self, completion: Completion) -> None:
        """Notes that the answer is complete."""
        seconds = self._succeed(completion.prompt_token_count, completion.load_seconds)
        self._its.fleet.note_generation(self.backend, completion, seconds)
        tokens = completion.output_token_count
        metrics = self._its.metrics
        metrics.count("balancer_tokens_total", self.backend.id, "output", amount=tokens)
        if tokens:
            metrics.observe(
                "balancer_time_per_output_token_seconds",
                completion.output_seconds / tokens,
                self.backend.id,
            )
        self._span.set_attributes(
            {
                "gen_ai.usage.output_tokens": tokens,
                "gen_ai.response.finish_reasons": [completion.finish_reason.value],
                "app.ollama.prompt_eval_s": completion.prompt_seconds,
                "app.ollama.eval_s": completion.output_seconds,
            }
        )

    def succeed_with_vectors(self, reply: EmbeddingReply) -> None:
        """Notes that the vectors are there."""
        seconds = self._succeed(reply.prompt_token_count, reply.load_seconds)
        self._its.fleet.note_embedding(self.backend, reply, seconds, self._texts_ahead)
        self._span.set_attribute("gen_ai.embeddings.dimension.count", reply.vectors.shape[1])

    def _succeed(self, prompt_token_count: int, load_seconds: float) -> float:
        self._succeeded = True
        its, backend_id = self._its, self.backend.id
        seconds = its.clock.monotonic() - self._began_at
        its.metrics.observe(
            "balancer_request_duration_seconds", seconds, backend_id, its.operation.value
        )
        its.metrics.count("balancer_tokens_total", backend_id, "input", amount=prompt_token_count)
        if load_seconds >= _SHORTEST_LOAD_SECONDS:
            its.metrics.observe("balancer_model_load_seconds", load_seconds, backend_id)
        self._span.set_attributes(
            {
                "http.response.status_code": 200,
                "gen_ai.usage.input_tokens": prompt_token_count,
                "app.ollama.load_s": load_seconds,
            }
        )
        return seconds

    def _outcome(self, error: BaseException | None) -> str:
        if self._succeeded:
            return "success"
        if isinstance(error, AttemptFailed):
            if error.kind is FailureKind.REJECTED:
                return "rejected"
            return "timeout" if error.kind in _TIMEOUTS else "error"
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            return "timeout" if deadline_is_spent() else "cancelled"
        return "error"

    def _report(self, outcome: str) -> None:
        its = self._its
        its.metrics.count("balancer_requests_total", self.backend.id, its.operation.value, outcome)
        self._show_load()
        self._span.set_attribute("app.balancer.outcome", outcome)
        self._span.end()

    def _show_load(self) -> None:
        self._its.metrics.set_gauge(
            "balancer_backend_inflight", self.backend.in_flight_count, self.backend.id
        )

    def _mark_failed(self, failure: AttemptFailed) -> None:
        mark_failed(self._span, failure.kind.value)
        if failure.status_code is not None:
            self._span.set_attribute("http.response.status_code", failure.status_code)

    def _start_span(self) -> Span:
        its, endpoint = self._its, self.backend.endpoint
        operation = _SPAN_OPERATIONS[its.operation]
        attributes: dict[str, str | int | float | bool] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "ollama",
            "gen_ai.request.model": self.model_name,
            "server.address": endpoint.host,
            "server.port": endpoint.port,
            "app.backend": self.backend.id,
            "app.balancer.policy": self.reason.value,
            "app.balancer.load_score": self._decision.load_seconds[self.backend.id],
            "app.balancer.attempt": self.number,
        }
        if its.operation is not Operation.EMBED:
            attributes["gen_ai.request.stream"] = True
        if self.number > 1:
            attributes["http.request.resend_count"] = self.number - 1
        return its.tracer.start_span(
            f"{operation} {self.model_name}", kind=SpanKind.CLIENT, attributes=attributes
        )


class Attempts:
    """The attempts of one request, or of one piece of it.

    Args:
        fleet: The backends.
        servers: What reaches them, by backend id.
        clock: Measures durations.
        metrics: Receives what the attempts took.
        tracer: Makes their spans.
        operation: What is asked for.
        model: The model as the caller wrote it.
        wanted: What is asked of a backend.
        maximum_count: Most attempts.
    """

    def __init__(
        self,
        fleet: Fleet,
        servers: Mapping[str, ModelServer],
        *,
        clock: Clock,
        metrics: Metrics,
        tracer: trace.Tracer,
        operation: Operation,
        model: str,
        wanted: Wanted,
        maximum_count: int,
    ) -> None:
        self.fleet = fleet
        self.servers = servers
        self.clock = clock
        self.metrics = metrics
        self.tracer = tracer
        self.operation = operation
        self.wanted = wanted
        self._model = model
        self._maximum_count = maximum_count
        self._tried: set[str] = set()
        self._last_failure = "no backend with the model is known"
        self._call_span = trace.get_current_span()

    def next(self) -> Attempt:
        """Chooses the backend of the next attempt.

        Raises:
            ModelNotFound: No backend has the model.
            ModelCapabilityMissing: The model cannot do what is asked for.
            AllAttemptsFailed: All backends with the model were tried.
        """
        decision = self.fleet.choose(self.wanted, self._tried)
        if isinstance(decision, Refusal):
            self._refuse(decision)
        self._tried.add(decision.backend_id)
        number = len(self._tried)
        if number > 1:
            self.fleet.counters.retry_count += 1
        self._call_span.set_attribute("app.balancer.attempts", number)
        if decision.reason is Reason.ROUND_ROBIN_FALLBACK:
            self._call_span.set_attributes({"app.balancer.fallback": True})
        return Attempt(self, decision, number)

    def _refuse(self, refusal: Refusal) -> NoReturn:
        if refusal.reason is RefusalReason.MODEL_NOT_FOUND:
            raise ModelNotFound(self._model, refusal.known_models)
        if refusal.reason is RefusalReason.CAPABILITY_MISSING:
            raise ModelCapabilityMissing(self._model, self.wanted.capability.value)
        raise AllAttemptsFailed(self._model, len(self._tried), self._last_failure)

    def consider(self, attempt: Attempt, failure: AttemptFailed) -> None:
        """Returns where another attempt may make a failure good; raises what the caller sees.

        Raises:
            StreamInterrupted: Text was passed on before the failure.
            BackendRejectedRequest: The request is at fault.
            AllAttemptsFailed: Neither attempts nor time are left.
        """
        if attempt.started:
            raise StreamInterrupted(
                attempt.backend.id, attempt.emitted_character_count, failure.message
            ) from failure
        if not failure.kind.retryable:
            raise BackendRejectedRequest(self._model, failure.message) from failure
        self._last_failure = f"{attempt.backend.id}: {failure.message}"
        if attempt.number >= self._maximum_count or deadline_is_spent():
            raise AllAttemptsFailed(self._model, attempt.number, self._last_failure) from failure
        self.metrics.count("balancer_retries_total", failure.kind.value)
