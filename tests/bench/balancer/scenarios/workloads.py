"""What users send, and for how long it is measured."""

from collections.abc import Sequence

from tests.bench.balancer.reference import (
    CHAT_A,
    CHAT_B,
    EMBED,
    Host,
    LogNormal,
    capacity,
)
from tests.bench.balancer.scenarios.port import Context
from tests.bench.balancer.traces import (
    Bursts,
    Request,
    RequestClass,
    Source,
    make_trace,
    offered_rate,
)

__all__ = ["MIXED", "ONE_CHAT_MODEL", "PREFIXES", "Span", "loaded_trace", "span"]

_PROMPT = LogNormal(median=400, sigma=0.8, maximum=4000)
_ANSWER = LogNormal(median=130, sigma=0.8, maximum=1500)
_TEXT = LogNormal(median=150, sigma=0.6, maximum=1500)

MIXED = (
    RequestClass(share=0.50, model=CHAT_A, prompt=_PROMPT, output=_ANSWER),
    RequestClass(share=0.15, model=CHAT_B, prompt=_PROMPT, output=_ANSWER),
    RequestClass(share=0.35, model=EMBED, prompt=_TEXT),
)
"""Two chat models and embeddings."""

ONE_CHAT_MODEL = (RequestClass(share=1.0, model=CHAT_A, prompt=_PROMPT, output=_ANSWER),)
"""One chat model."""

PREFIXES = (
    RequestClass(
        share=1.0,
        model=CHAT_A,
        prompt=LogNormal(median=100, sigma=0.6, maximum=1000),
        output=_ANSWER,
        prefix_count=64,
        prefix_tokens=(1000, 8000),
    ),
)
"""One chat model; each request begins with one of 64 prefixes of 1,000 to 8,000 tokens.

A host remembers 65,536 tokens, some 14 of them: none remembers all, the fleet together could.
"""


class Span:
    """How long a trace is.

    Attributes:
        warm_up_seconds: Part at its beginning that is not counted.
        end_seconds: Its end.
    """

    def __init__(self, warm_up_seconds: float, measured_seconds: float) -> None:
        self.warm_up_seconds = warm_up_seconds
        self.end_seconds = warm_up_seconds + measured_seconds


def span(context: Context) -> Span:
    """Returns how long the traces of a full, or of a quick, run are."""
    return Span(60.0, 180.0) if context.quick else Span(100.0, 400.0)


def loaded_trace(
    classes: Sequence[RequestClass],
    hosts: Sequence[Host],
    *,
    load_ratio: float,
    end_seconds: float,
    seed: int,
    bursts: Bursts | None = None,
) -> tuple[Request, ...]:
    """Draws a trace that keeps a fleet busy for a share of its time, loads not counted."""
    rate = offered_rate(classes, load_ratio, capacity(hosts))
    source = Source(
        classes=tuple(classes),
        rate_per_second=rate,
        begin_seconds=0.0,
        end_seconds=end_seconds,
        bursts=bursts,
    )
    return make_trace([source], seed)
