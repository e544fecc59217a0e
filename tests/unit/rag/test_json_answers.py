"""Answers in JSON are held to the schema they were asked for by."""

import pytest

from services.rag.core.json_answers import (
    cited_markers,
    parse_json,
    schema_problem,
    stated_values,
    unchecked_keywords,
)

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "age": {"type": "integer", "minimum": 0},
        "kind": {"enum": ["a", "b"]},
        "parts": {"type": "array", "items": {"$ref": "#/$defs/part"}, "maxItems": 2},
    },
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"part": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"name": "x"}, None),
        ({"name": "x", "age": 3, "kind": "a", "parts": ["p", None]}, None),
        ([], "$ is not of type object"),
        ({}, "no property 'name'"),
        ({"name": ""}, "$.name has a size of 0"),
        ({"name": "x", "age": -1}, "$.age is below"),
        ({"name": "x", "age": True}, "$.age is not of type integer"),
        ({"name": "x", "age": 1.5}, "$.age is not of type integer"),
        ({"name": "x", "kind": "c"}, "$.kind is none"),
        ({"name": "x", "other": 1}, "$.other is not allowed"),
        ({"name": "x", "parts": [1]}, "$.parts[0] follows none"),
        ({"name": "x", "parts": ["a", "b", "c"]}, "$.parts has a size of 3"),
    ],
)
def test_a_value_follows_its_schema(value, problem):
    found = schema_problem(value, SCHEMA)
    assert found is None if problem is None else problem in found


def test_a_schema_that_refers_to_itself_ends():
    assert schema_problem({"a": {}}, {"$ref": "#"}) is None


@pytest.mark.parametrize("kind", ["allOf", "oneOf", "anyOf"])
def test_a_schema_that_refers_to_itself_twice_ends(kind):
    twice = [{"$ref": "#"}, {"$ref": "#"}]
    chain = {f"d{each}": {kind: [{"$ref": f"#/$defs/d{each + 1}"}] * 2} for each in range(40)}
    for schema in ({kind: twice}, {"$defs": chain, "$ref": "#/$defs/d0"}):
        assert kind == "anyOf" or "$" in (schema_problem({}, schema) or "")
    assert schema_problem([{"a": each} for each in range(5000)], {"items": {kind: [{}]}}) is None


def test_what_is_not_checked_of_a_schema_is_named():
    assert unchecked_keywords(SCHEMA) == ()
    schema = {
        "$ref": "https://example.org/other",
        "properties": {
            "pattern": {"type": "string", "pattern": "^a"},
            "format": {"enum": [{"not": 1}]},
            "list": {"items": {"anyOf": [{"type": "date"}, {"$ref": "#/properties/format"}]}},
        },
    }
    assert unchecked_keywords(schema) == ("$ref", "pattern", "type")
    assert unchecked_keywords(True) == ()


@pytest.mark.parametrize("text", ["", "{", "NaN", "[1,]", "{'a': 1}", "[" * 100_000])
def test_what_is_no_json_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 - the parser's words are its own
        parse_json(text)


def test_sources_are_listed_and_all_else_is_said():
    value = {"answer": "5 days", "day_count": 5, "ok": True, "sources": [2, "[1]", 2, "x", True]}
    assert cited_markers(value) == (2, 1)
    assert stated_values(value) == ("5 days", "day count 5")
    assert cited_markers([1]) == ()
