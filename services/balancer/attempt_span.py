"""The span of an attempt: by hand, around the whole of what a backend sends.

It names what was asked of whom and what came of it, and never quotes a prompt or an answer; what a
backend says when it fails may do so, which is why that is left out too.
"""

import asyncio
from collections.abc import Iterable, Mapping

from opentelemetry import trace
from opentelemetry.trace import Link, Span, SpanContext, SpanKind

from services.balancer.call import Call
from services.balancer.core.failures import AttemptFailed
from services.balancer.core.outcomes import AttemptOutcome
from services.balancer.core.requests import Completion, EmbeddingReply, Operation
from services.balancer.equipment import Equipment
from services.balancer.tickets import Grant
from services.common.tracing import PROPAGATOR, SERVER_ADDRESS, SERVER_PORT, mark_failed

__all__ = ["AttemptSpan"]

_OPERATIONS = {
    Operation.CHAT: "chat",
    Operation.GENERATE: "text_completion",
    Operation.EMBED: "embeddings",
}
_FAILURES = (AttemptOutcome.ERROR, AttemptOutcome.TIMEOUT)
# Why a link is there.
_LINK = "app.link"


class AttemptSpan:
    """The span of one attempt, part of the trace of the call whose place in the queue it had.

    Args:
        equipment: What all attempts share.
        operation: What is asked for.
        grant: The slot, and why that one.
        model_name: The model by the backend's own name for it.
        number: Counts the attempts of the request from 1.
        calls: The calls that it serves.
        beside: The attempt that is late, where this one is a second one beside it.
    """

    def __init__(
        self,
        equipment: Equipment,
        operation: Operation,
        grant: Grant,
        *,
        model_name: str,
        number: int,
        calls: Iterable[Call],
        beside: SpanContext | None,
    ) -> None:
        self._first, *others = [call.span for call in calls] or [trace.get_current_span()]
        self._context = trace.set_span_in_context(self._first)
        self._span: Span = equipment.tracer.start_span(
            f"{_OPERATIONS[operation]} {model_name}",
            context=self._context,
            kind=SpanKind.CLIENT,
            attributes=_attributes(operation, grant, model_name, number),
            links=[Link(beside, {_LINK: "late_attempt"})] if beside is not None else None,
        )
        if self._span.is_recording():
            score = equipment.fleet.load_score_without(grant.occupancy)
            self._span.set_attribute("app.balancer.load_score", score)
        self._serve(others)

    @property
    def context(self) -> SpanContext:
        """Its ids."""
        return self._span.get_span_context()

    @property
    def headers(self) -> Mapping[str, str]:
        """The trace context for the backend, and nothing else that travels with the call."""
        carrier: dict[str, str] = {}
        PROPAGATOR.inject(carrier, trace.set_span_in_context(self._span, self._context))
        return carrier

    def serve(self, calls: Iterable[Call]) -> None:
        """Notes that it serves further calls: links lead from it to each, and back."""
        self._serve([call.span for call in calls])

    def _serve(self, spans: Iterable[Span]) -> None:
        for span in spans:
            if span is not self._first:
                self._span.add_link(span.get_span_context(), {_LINK: "served_call"})
                span.add_link(self.context, {_LINK: "shared_attempt"})

    def note_first_token(self, seconds: float) -> None:
        """Notes the first token, which comes after a good status."""
        self._span.set_attributes(
            {"gen_ai.response.time_to_first_chunk": seconds, "http.response.status_code": 200}
        )

    def note_completion(self, completion: Completion) -> None:
        """Notes what a backend reports of an answer."""
        self._span.set_attributes(
            {
                "gen_ai.usage.input_tokens": completion.prompt_token_count,
                "gen_ai.usage.output_tokens": completion.output_token_count,
                "gen_ai.response.finish_reasons": (completion.finish_reason.value,),
                "app.ollama.load_s": completion.load_seconds,
                "app.ollama.prompt_eval_s": completion.prompt_seconds,
                "app.ollama.eval_s": completion.output_seconds,
            }
        )

    def note_vectors(self, reply: EmbeddingReply) -> None:
        """Notes what a backend reports of vectors."""
        text_count, dimension = reply.vectors.shape
        self._span.set_attributes(
            {
                "http.response.status_code": 200,
                "gen_ai.usage.input_tokens": reply.prompt_token_count,
                "gen_ai.embeddings.dimension.count": dimension,
                "app.balancer.texts": text_count,
                "app.ollama.load_s": reply.load_seconds,
            }
        )

    def end(self, outcome: AttemptOutcome, error: BaseException | None) -> None:
        """Ends it; failed where the backend has failed, and not where the caller has left."""
        self._span.set_attribute("app.balancer.outcome", outcome.value)
        if outcome is AttemptOutcome.SUCCESS:
            error = None
        if isinstance(error, AttemptFailed):
            mark_failed(self._span, error.kind.value)
            if error.status_code is not None:
                self._span.set_attribute("http.response.status_code", error.status_code)
        elif outcome in _FAILURES and error is not None:
            left = isinstance(error, asyncio.CancelledError | GeneratorExit)
            mark_failed(self._span, "deadline" if left else error)
        self._span.end()


def _attributes(
    operation: Operation, grant: Grant, model_name: str, number: int
) -> dict[str, str | int | float | bool]:
    endpoint = grant.backend.endpoint
    attributes: dict[str, str | int | float | bool] = {
        "gen_ai.operation.name": _OPERATIONS[operation],
        "gen_ai.provider.name": "ollama",
        "gen_ai.request.model": model_name,
        SERVER_ADDRESS: endpoint.host,
        SERVER_PORT: endpoint.port,
        "app.backend": grant.backend.id,
        "app.balancer.policy": grant.reason.value,
        "app.balancer.decision": grant.decision_id,
        "app.balancer.queue_wait_s": grant.queue_seconds,
        "app.balancer.predicted_first_token_s": grant.predicted_first_token_seconds,
        "app.balancer.attempt": number,
    }
    if operation is not Operation.EMBED:
        attributes["gen_ai.request.stream"] = True
    if grant.load_seconds:
        attributes["app.balancer.load_wait_s"] = grant.load_seconds
    if number > 1:
        attributes["http.request.resend_count"] = number - 1
    return attributes
