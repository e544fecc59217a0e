"""Tools that a model may ask for: what they are told, and what came of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from services.rag.core.conversation import ToolCall, ToolDefinition
from services.rag.core.json_answers import parse_json, schema_problem

__all__ = [
    "LONGEST_ARGUMENTS",
    "TOOL_NAMES",
    "UNKNOWN_TOOL",
    "Arguments",
    "BadArguments",
    "ToolExecution",
    "ToolOutcome",
    "call_key",
    "read_arguments",
]

TOOL_NAMES = ("retrieve", "web_search", "calculator", "current_time")
"""All tools that a model may ask for."""

UNKNOWN_TOOL = "unknown"
"""What is counted under one name: whatever else a model takes for a tool."""

LONGEST_ARGUMENTS = 8_000

Arguments = Mapping[str, Any]


class ToolOutcome(Enum):
    """What came of a call of a tool; the values label metrics."""

    SUCCESS = "success"
    REPEATED = "repeated"
    INVALID_ARGUMENTS = "invalid_arguments"
    UNKNOWN_TOOL = "unknown_tool"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    SKIPPED = "skipped"

    @property
    def is_success(self) -> bool:
        """Whether the model was given what it asked for."""
        return self in (ToolOutcome.SUCCESS, ToolOutcome.REPEATED)

    @property
    def was_carried_out(self) -> bool:
        """Whether the tool was at work; whatever else is answered takes no time."""
        return self in (ToolOutcome.SUCCESS, ToolOutcome.FAILED, ToolOutcome.TIMED_OUT)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolExecution:
    """A call of a tool.

    Attributes:
        name: Name of the tool, as the model wrote it.
        arguments_json: The arguments, as the model wrote them.
        outcome: What came of it.
        duration_seconds: How long it took.
        summary: What it found, or why it found nothing, in a few words.
        step: The step in which the model asked for it, from 1.
    """

    name: str
    arguments_json: str
    outcome: ToolOutcome
    duration_seconds: float
    summary: str
    step: int


class BadArguments(ValueError):
    """Arguments break the rules of a tool; the text says how, for the model to read."""


def read_arguments(definition: ToolDefinition, arguments_json: str) -> Arguments:
    """Reads the arguments of a call.

    Args:
        definition: The tool.
        arguments_json: An object as JSON text; empty stands for no arguments.

    Raises:
        BadArguments: They are no JSON, or do not follow the tool's schema.
    """
    if len(arguments_json) > LONGEST_ARGUMENTS:
        raise BadArguments(f"the arguments are longer than {LONGEST_ARGUMENTS} characters")
    try:
        arguments = parse_json(arguments_json.strip() or "{}")
    except ValueError:
        raise BadArguments("the arguments are no JSON object") from None
    schema = json.loads(definition.parameters_json_schema)
    problem = schema_problem(arguments, schema)
    if problem is not None:
        raise BadArguments(f"the arguments do not follow the schema: {problem}")
    if not isinstance(arguments, dict):
        raise BadArguments("the arguments are no JSON object")
    return arguments


def call_key(call: ToolCall) -> tuple[str, str]:
    """Returns what two calls have in common that ask for the same."""
    try:
        arguments = parse_json(call.arguments_json)
    except ValueError:
        return call.name, call.arguments_json
    if isinstance(arguments, dict):
        arguments = {name: _plain(value) for name, value in arguments.items()}
    return call.name, json.dumps(arguments, sort_keys=True)


def _plain(value: Any) -> Any:
    return " ".join(value.casefold().split()) if isinstance(value, str) else value
