"""Spans of what the balancer does on its own account: loads, canaries, cures.

Each begins a trace of its own, whoever's request has set it off: it goes on when that has ended,
and others wait for it as well. Links lead to those who have caused it. Health checks and listings
make no spans.
"""

from collections.abc import Iterable
from contextvars import Context
from itertools import islice

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Tracer

from services.balancer.backend import Backend, ModelState
from services.common.tracing import SERVER_ADDRESS, SERVER_PORT

__all__ = ["context_of", "current_causes", "start_own_span"]

# Who waits beyond these finds the load through its backend and time.
_MOST_LINKS = 16


def start_own_span(
    tracer: Tracer,
    name: str,
    backend: Backend,
    model: ModelState,
    *,
    kind: SpanKind,
    causes: Iterable[SpanContext] = (),
) -> Span:
    """Begins the span of something that the balancer does on its own account.

    Args:
        tracer: Makes it.
        name: What it does: `load`, `canary`, `cure`.
        backend: Where.
        model: With which model.
        kind: CLIENT where it is a single request to the backend.
        causes: The spans that have caused it.
    """
    valid = {each.span_id: each for each in causes if each.is_valid}
    return tracer.start_span(
        f"{name} {model.installed.name}",
        context=otel_context.Context(),
        kind=kind,
        attributes={
            "gen_ai.provider.name": "ollama",
            "gen_ai.request.model": model.installed.name,
            SERVER_ADDRESS: backend.endpoint.host,
            SERVER_PORT: backend.endpoint.port,
            "app.backend": backend.id,
        },
        links=[Link(each, {"app.link": "cause"}) for each in islice(valid.values(), _MOST_LINKS)],
    )


def current_causes() -> list[SpanContext]:
    """Returns the running span, where there is one, as the cause of what it sets off."""
    return [trace.get_current_span().get_span_context()]


def context_of(span: Span) -> Context:
    """Makes the context of a task that works for a span and for nobody else.

    Its logs are found by the span, and neither deadline nor tenant of whoever set it off count.
    """
    context = Context()
    context.run(otel_context.attach, trace.set_span_in_context(span, otel_context.Context()))
    return context
