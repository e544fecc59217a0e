"""The trace that a program's calls belong to, as W3C Trace Context writes it."""

import secrets
from dataclasses import dataclass

__all__ = ["TraceContext"]

_SAMPLED = "01"


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A place in a trace.

    Attributes:
        trace_id: The trace, 32 hexadecimal digits, not all zero.
        span_id: What the calls are part of, 16 hexadecimal digits, not all zero.
    """

    trace_id: str
    span_id: str

    @classmethod
    def new(cls) -> "TraceContext":
        """Begins a trace."""
        return cls(_nonzero(16), _nonzero(8))

    @property
    def traceparent(self) -> str:
        """The header's value; it asks that the trace be recorded."""
        return f"00-{self.trace_id}-{self.span_id}-{_SAMPLED}"


def _nonzero(byte_count: int) -> str:
    while not int(text := secrets.token_hex(byte_count), 16):
        pass
    return text
