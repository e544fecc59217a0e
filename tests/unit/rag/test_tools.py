"""What a model asks of a tool is checked before anything is done."""

import pytest

from services.rag.agent_tools import CalculatorTool, ClockTool, RetrieveTool, WebTool
from services.rag.core.conversation import ToolCall
from services.rag.core.json_answers import parse_json
from services.rag.core.tools import (
    LONGEST_ARGUMENTS,
    TOOL_NAMES,
    BadArguments,
    ToolOutcome,
    call_key,
    read_arguments,
)

DEFINITIONS = [each.definition for each in (RetrieveTool, WebTool, CalculatorTool, ClockTool)]


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda each: each.name)
def test_every_tool_says_what_it_takes(definition):
    schema = parse_json(definition.parameters_json_schema)
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert definition.description.endswith(".")
    assert definition.name in TOOL_NAMES


def test_arguments_that_follow_the_schema_are_read():
    assert read_arguments(DEFINITIONS[0], '{"query": "tides", "count": 3}') == {
        "query": "tides",
        "count": 3,
    }
    assert read_arguments(DEFINITIONS[3], "") == {}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("{}", "query"),
        ('{"query": ""}', "size"),
        ('{"query": 7}', "string"),
        ('{"query": "a", "count": 99}', "maximum"),
        ('{"query": "a", "count": true}', "integer"),
        ('{"query": "a", "more": 1}', "more"),
        ("[]", "object"),
        ("null", "object"),
        ("{", "JSON"),
        ('{"query": NaN}', "JSON"),
        ("[" * 5000, "JSON"),
        ('{"query": "' + "x" * LONGEST_ARGUMENTS + '"}', "longer"),
    ],
)
def test_arguments_that_do_not_are_refused_with_a_reason(arguments, told):
    with pytest.raises(BadArguments, match=told):
        read_arguments(DEFINITIONS[0], arguments)


def test_calls_are_the_same_that_ask_for_the_same():
    def key(arguments, name="retrieve"):
        return call_key(ToolCall("", name, arguments))

    assert key('{"query": "The  Tides ", "count": 1}') == key('{"count":1,"query":"the tides"}')
    assert key('{"query": "tides"}') != key('{"query": "tide"}')
    assert key('{"query": "tides"}') != key('{"query": "tides"}', "web_search")
    assert key("{") == key("{")


def test_only_what_gave_the_model_something_is_a_success():
    assert {each for each in ToolOutcome if each.is_success} == {
        ToolOutcome.SUCCESS,
        ToolOutcome.REPEATED,
    }
