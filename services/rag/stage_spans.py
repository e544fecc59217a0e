"""How the stages of a call are called in its trace.

Profiles name stages as callers know them; traces follow the conventions for generative models. What
consists of one call or one statement alone has no span of its own: the span of the call or of the
statement says it all, and an answer from the cache is told in a few spans.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar

from opentelemetry.context import attach, detach
from opentelemetry.trace import Span, set_span_in_context

__all__ = ["GEN_AI_OPERATION", "StageSpan", "span_of", "within"]

T = TypeVar("T")

GEN_AI_OPERATION = "gen_ai.operation.name"
_RETURNED = "app.retrieval.returned"
_TOOL_PREFIX = "tool_"


@dataclass(frozen=True, slots=True)
class StageSpan:
    """How a stage is called in a trace.

    Attributes:
        name: Name of its span.
        attributes: What is known of it beforehand.
        count: The attribute that says how many items came of it.
    """

    name: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    count: str = "app.rag.item_count"


def _tool(name: str, count: str = _RETURNED) -> StageSpan:
    attributes = {GEN_AI_OPERATION: "execute_tool", "gen_ai.tool.name": name}
    return StageSpan(f"execute_tool {name}", attributes, count)


_WITHOUT = frozenset(
    {
        # Of one statement.
        "collection",
        "evidence_check",
        "load_passages",
        "load_vectors",
        "merge_neighbors",
        # Of one call.
        "inference_lookup",
        "inference_store",
        "model",
        "query_lookup",
        "semantic_lookup",
        "semantic_store",
        "web_find",
    }
)
_SPANS = {
    "agent": StageSpan(
        "invoke_agent gatherer",
        {GEN_AI_OPERATION: "invoke_agent", "gen_ai.agent.name": "gatherer"},
        _RETURNED,
    ),
    "agent_step": StageSpan("agent.step", count="app.agent.tool_calls"),
    "embed_question": StageSpan("embed.question"),
    "embed_variants": StageSpan("embed.variants"),
    "expand": _tool("expand", "app.expand.variants"),
    "fuse": StageSpan("fuse", count=_RETURNED),
    "keyword_search": StageSpan("retrieve.bm25", count=_RETURNED),
    "rerank": _tool("rerank", "app.rerank.out"),
    "rewrite": _tool("rewrite"),
    "search_variants": StageSpan("retrieve.variants", count=_RETURNED),
    "vector_search": StageSpan("retrieve.vector", count=_RETURNED),
    "verify": StageSpan("evaluate.quality"),
    "web_rank": StageSpan("web.rank", count=_RETURNED),
    "web_read": StageSpan("web.read"),
    "web_search": _tool("web_search"),
}
_TOOLS: dict[str, StageSpan] = {}


def span_of(stage: str) -> StageSpan | None:
    """Returns how a stage is called in a trace; None where it has no span of its own.

    Args:
        stage: Its name. What is not known by another name is called what it is.
    """
    if stage in _WITHOUT:
        return None
    known = _SPANS.get(stage)
    if known is not None:
        return known
    if stage.startswith(_TOOL_PREFIX):
        # Names are those of our own tools, of which there are few.
        return _TOOLS.setdefault(stage, _tool(stage.removeprefix(_TOOL_PREFIX)))
    return StageSpan(stage)


async def within(span: Span, events: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """Yields what a generator does, each step of which runs as a part of a span.

    A span that is the current one over a `yield` would stay so in whatever the consumer does next,
    and could not be taken back where the generator is ended in another context.

    Args:
        span: The span; it is not ended.
        events: The generator, which is closed with this one.
    """
    async with aclosing(events):
        while True:
            token = attach(set_span_in_context(span))
            try:
                event = await anext(events)
            except StopAsyncIteration:
                return
            finally:
                detach(token)
            yield event
