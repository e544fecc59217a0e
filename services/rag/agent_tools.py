"""The tools that a model may ask for in mode AGENT."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Protocol

from services.common.clock import Clock
from services.rag.core.calculator import (
    LONGEST_EXPRESSION,
    CalculationError,
    calculate,
    written,
)
from services.rag.core.conversation import ToolDefinition
from services.rag.core.options import Mode, WebPolicy
from services.rag.core.passages import FusedChunk, Passage, PassageOrigin, RankedPassage
from services.rag.core.profile import DegradationReason
from services.rag.core.retrieved import Confidence
from services.rag.core.tokens import estimate_tokens
from services.rag.core.tools import Arguments, BadArguments
from services.rag.ports import WebSearch
from services.rag.retrieve import Retriever
from services.rag.suspects import mark_suspects
from services.rag.task import AnswerTask

__all__ = [
    "CalculatorTool",
    "ClockTool",
    "RetrieveTool",
    "Tool",
    "ToolResult",
    "WebTool",
    "offered",
]

_LONGEST_QUERY = 400
_PASSAGE_COUNT = 5
_MOST_PASSAGES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """What a tool has found.

    Attributes:
        passages: Best first.
        summary: What it found, in a few words.
        confidence: How likely documents' passages hold what was asked for; None where none were
            looked for.
        query: What was looked for in the documents; empty where nothing was.
    """

    passages: tuple[RankedPassage, ...]
    summary: str
    confidence: Confidence | None = None
    query: str = ""


class Tool(Protocol):
    """Does something for a model."""

    definition: ToolDefinition
    failure: DegradationReason

    def is_offered(self, task: AnswerTask) -> bool:
        """Says whether the model may ask for it."""
        ...

    async def run(
        self, arguments: Arguments, task: AnswerTask, *, time_limit_seconds: float
    ) -> ToolResult:
        """Does it.

        Args:
            arguments: As the definition's schema has them.
            task: The question that it is done for.
            time_limit_seconds: Longest time to take; whoever calls cancels it then.

        Raises:
            BadArguments: They make no sense; the text is for the model.
            ServiceError: It cannot be done.
        """
        ...


class RetrieveTool:
    """Searches the collection.

    Args:
        retriever: Searches.
    """

    failure = DegradationReason.TOOL_FAILED
    definition = ToolDefinition(
        "retrieve",
        "Searches the documents, by meaning and by words, and returns numbered passages.",
        json.dumps(
            {
                "type": "object",
                "properties": {
                    "query": {
                        "type": "string",
                        "description": "What to look for: a question or a few words.",
                        "minLength": 1,
                        "maxLength": _LONGEST_QUERY,
                    },
                    "count": {
                        "type": "integer",
                        "description": f"How many passages; {_PASSAGE_COUNT} where not said.",
                        "minimum": 1,
                        "maximum": _MOST_PASSAGES,
                    },
                },
                "required": ["query"],
                "additionalProperties": False,
            }
        ),
    )

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever

    def is_offered(self, task: AnswerTask) -> bool:
        """Says whether there are documents."""
        return bool(task.question.collection)

    async def run(
        self,
        arguments: Arguments,
        task: AnswerTask,
        *,
        time_limit_seconds: float,  # noqa: ARG002 - searches have limits of their own
    ) -> ToolResult:
        """Searches; the caller's own options hold, but for the number of passages."""
        query = _query_of(arguments)
        count = int(arguments.get("count", _PASSAGE_COUNT))
        options = replace(task.question.retrieval, passage_count=count)
        search = await self._retriever.open(
            task.tenant_id, task.question.collection, query, options, task.recorder
        )
        search.mode = Mode.AGENT
        search.cache_is_away = task.cache_is_away
        found = await self._retriever.find(search)
        passages = await mark_suspects(found.passages, task.recorder)
        return ToolResult(
            passages=passages,
            summary=f"{len(passages)} passages",
            confidence=found.confidence,
            query=query,
        )


class WebTool:
    """Searches the web.

    Args:
        web: Searches; None where no provider is configured.
    """

    failure = DegradationReason.WEB_SEARCH_UNAVAILABLE
    definition = ToolDefinition(
        "web_search",
        "Searches the web and returns numbered passages of the pages found. For what the documents "
        "do not hold, or what changes from day to day.",
        json.dumps(
            {
                "type": "object",
                "properties": {
                    "query": {
                        "type": "string",
                        "description": "What to look for, in a few words.",
                        "minLength": 1,
                        "maxLength": _LONGEST_QUERY,
                    }
                },
                "required": ["query"],
                "additionalProperties": False,
            }
        ),
    )

    def __init__(self, web: WebSearch | None) -> None:
        self._web = web

    def is_offered(self, task: AnswerTask) -> bool:
        """Says whether the web can and may be searched."""
        return self._web is not None and task.question.web is not WebPolicy.NEVER

    async def run(
        self, arguments: Arguments, task: AnswerTask, *, time_limit_seconds: float
    ) -> ToolResult:
        """Searches."""
        assert self._web is not None  # noqa: S101 - only then it is offered
        found = await self._web.search(
            _query_of(arguments),
            task.recorder,
            limit=_PASSAGE_COUNT,
            time_limit_seconds=time_limit_seconds,
        )
        passages = await mark_suspects(found, task.recorder)
        pages = len({each.passage.document_id for each in passages})
        return ToolResult(passages=passages, summary=f"{len(passages)} passages of {pages} pages")


class CalculatorTool:
    """Calculates."""

    failure = DegradationReason.TOOL_FAILED
    definition = ToolDefinition(
        "calculator",
        "Calculates exactly: + - * / // % **, comparison, parentheses, min, max, sum, avg, round, "
        "abs, floor, ceil, sqrt, log, log10, exp, pi. 15% is 0.15, and 15% of 80 is 12. Numbers "
        "have no separators of thousands and no units.",
        json.dumps(
            {
                "type": "object",
                "properties": {
                    "expression": {
                        "type": "string",
                        "description": "For example (1240 - 980) / 980 * 100.",
                        "minLength": 1,
                        "maxLength": LONGEST_EXPRESSION,
                    }
                },
                "required": ["expression"],
                "additionalProperties": False,
            }
        ),
    )

    def is_offered(self, task: AnswerTask) -> bool:  # noqa: ARG002 - to anyone
        """Says that it always is."""
        return True

    async def run(
        self,
        arguments: Arguments,
        task: AnswerTask,  # noqa: ARG002 - numbers are the same for everyone
        *,
        time_limit_seconds: float,  # noqa: ARG002 - expressions are bounded
    ) -> ToolResult:
        """Calculates."""
        expression = " ".join(str(arguments["expression"]).split())
        try:
            value = await asyncio.to_thread(calculate, expression)
        except CalculationError as error:
            raise BadArguments(f"the expression has no value: {error}") from None
        shown = written(value)
        text = f"{expression} = {shown}"
        return ToolResult(passages=(_computed("calculator", "Calculation", text),), summary=shown)


class ClockTool:
    """Tells the time.

    Args:
        clock: Knows it.
    """

    failure = DegradationReason.TOOL_FAILED
    definition = ToolDefinition(
        "current_time",
        "Tells the current date and time in UTC.",
        json.dumps({"type": "object", "properties": {}, "additionalProperties": False}),
    )

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def is_offered(self, task: AnswerTask) -> bool:  # noqa: ARG002 - to anyone
        """Says that it always is."""
        return True

    async def run(
        self,
        arguments: Arguments,  # noqa: ARG002 - there are none
        task: AnswerTask,  # noqa: ARG002 - it is the same for everyone
        *,
        time_limit_seconds: float,  # noqa: ARG002 - it takes none
    ) -> ToolResult:
        """Tells the time."""
        now = datetime.fromtimestamp(self._clock.now(), UTC)
        shown = f"{now:%A, %d %B %Y, %H:%M} UTC"
        text = f"The current date and time: {shown}."
        return ToolResult(passages=(_computed("current_time", "Clock", text),), summary=shown)


def _query_of(arguments: Mapping[str, Any]) -> str:
    query = " ".join(str(arguments["query"]).split())
    if not query:
        raise BadArguments("the query is empty")
    return query


def _computed(tool: str, title: str, text: str) -> RankedPassage:
    """Makes a passage of what a tool says, so that the answer can cite it."""
    digest = blake2b(f"{tool}\0{text}".encode("utf-8", "replace"), digest_size=7).digest()
    passage = Passage(
        chunk_id=-1 - int.from_bytes(digest),
        collection="",
        document_id=f"tool:{tool}",
        title=title,
        source_uri="",
        media_type="text/plain",
        metadata={},
        ordinal=0,
        char_start=0,
        char_end=len(text),
        text=text,
        heading_path=(),
        header=title,
        token_estimate=estimate_tokens(text),
        origin=PassageOrigin.TOOL,
    )
    return RankedPassage(passage, FusedChunk(chunk_id=passage.chunk_id, score=1.0))


def offered(tools: Sequence[Tool], task: AnswerTask) -> dict[str, Tool]:
    """Returns the tools that a model may ask for, by name."""
    return {each.definition.name: each for each in tools if each.is_offered(task)}
