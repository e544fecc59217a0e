"""Which span a lease was given to, told by its token.

Whoever waits for what another caller computes points at that caller's span, on whichever replica
that is; and so does what is handed over later, in a trace of its own.
"""

import secrets

from opentelemetry import trace
from opentelemetry.trace import Span, SpanContext, TraceFlags

from services.cache.core.leases import SECRET_BYTES, Origin, make_nonce, origin_of

__all__ = ["link_to_cause", "link_to_holder", "new_nonce"]

_RECORDED = TraceFlags(TraceFlags.SAMPLED)


def new_nonce() -> str:
    """Makes the end of a token for the caller whose span is the current one."""
    context = trace.get_current_span().get_span_context()
    origin = Origin(context.trace_id, context.span_id) if context.trace_flags.sampled else None
    return make_nonce(secrets.token_bytes(SECRET_BYTES), origin)


def link_to_holder(span: Span, token: str) -> None:
    """Links the span of who waits to the one that the lease was given to.

    Args:
        span: The span, not yet ended.
        token: The lease's token; one that does not tell makes no link.
    """
    if span.is_recording():
        _link(span, origin_of(token))


def link_to_cause(token: str) -> None:
    """Links the span of who ends a lease to the one that it was given to.

    Within one trace nothing need be said.

    Args:
        token: The lease's token, which has proved to be held: one that a caller has made up may
            name any span. One that does not tell makes no link.
    """
    span = trace.get_current_span()
    if span.is_recording():
        origin = origin_of(token)
        if origin is not None and origin.trace_id != span.get_span_context().trace_id:
            _link(span, origin)


def _link(span: Span, origin: Origin | None) -> None:
    if origin is not None:
        span.add_link(SpanContext(*origin, is_remote=True, trace_flags=_RECORDED))
