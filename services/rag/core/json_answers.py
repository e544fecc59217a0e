"""Answers that are JSON: whether they are, whether they follow a schema, and what they say.

The schema check knows the parts of JSON Schema that models can be held to: types, required and
further properties, items, enumerations, bounds of numbers, lengths and counts, and combinations.
What it does not know it does not check; `unchecked_keywords` names it.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "JSON_SOURCES",
    "cited_markers",
    "form_problem",
    "parse_json",
    "schema_problem",
    "stated_values",
    "unchecked_keywords",
]

JSON_SOURCES = "sources"
"""Property of an answer that lists the numbers of its sources."""

_MOST_DEPTH = 64
# Schemas that refer to themselves more than once would be gone through without end.
_MOST_STEPS = 50_000
_UNCHECKED = frozenset(
    {
        *("contains", "dependencies", "dependentRequired", "dependentSchemas", "else", "format"),
        *("if", "multipleOf", "not", "pattern", "patternProperties", "prefixItems"),
        *("propertyNames", "then", "unevaluatedItems", "unevaluatedProperties", "uniqueItems"),
        *("$dynamicRef", "$recursiveRef"),
    }
)
# What these hold is named by the author of the schema, or is data.
_NAMED_SCHEMAS = frozenset({"properties", "$defs", "definitions"})
_DATA = frozenset({"const", "default", "enum", "examples"})
_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: (
        not isinstance(value, bool)
        and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))
    ),
}


def parse_json(text: str) -> Any:
    """Reads JSON.

    Raises:
        ValueError: It is none; NaN and infinity count as none.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


@dataclass(slots=True)
class _Root:
    """A whole schema, and how much of it may still be gone through."""

    schema: Any
    steps_left: int = _MOST_STEPS


def schema_problem(value: Any, schema: Any) -> str | None:
    """Returns how a value breaks a JSON Schema, or None.

    Args:
        value: The value, as `parse_json` reads it.
        schema: The schema, in the same form.
    """
    return next(_problems(value, schema, _Root(schema), "$", 0), None)


def unchecked_keywords(schema: Any) -> tuple[str, ...]:
    """Returns what of a JSON Schema `schema_problem` does not check, sorted."""
    found: set[str] = set()
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        if not isinstance(part, dict):
            continue
        for key, each in part.items():
            if key in _UNCHECKED:
                found.add(key)
            elif key == "type" and not _are_types(each):
                found.add("type")
            elif key == "$ref" and not str(each).startswith("#"):
                found.add("$ref")
            elif key not in _DATA:
                waiting += each.values() if _holds_schemas(key, each) else [each]
    return tuple(sorted(found))


def form_problem(text: str, json_schema: str) -> tuple[str | None, tuple[str, ...]]:
    """Says why an answer has not the form it must have, and what of that was not checked.

    Args:
        text: The answer.
        json_schema: The schema it must follow, as JSON text; empty where any JSON will do.

    Returns:
        The problem, None where there is none, and the keywords of the schema that are not checked.
    """
    try:
        value = parse_json(text)
        schema = parse_json(json_schema) if json_schema else True
        return schema_problem(value, schema), unchecked_keywords(schema)
    except ValueError as error:
        return f"it is no JSON: {error}", ()


def cited_markers(value: Any) -> tuple[int, ...]:
    """Returns the numbers of the sources that an answer lists."""
    listed = value.get(JSON_SOURCES) if isinstance(value, dict) else None
    if not isinstance(listed, list):
        return ()
    numbers = (_number(each) for each in listed)
    return tuple(dict.fromkeys(each for each in numbers if each is not None))


def stated_values(value: Any) -> tuple[str, ...]:
    """Returns the texts and numbers of an answer, without the list of its sources."""
    if isinstance(value, dict):
        value = {key: each for key, each in value.items() if key != JSON_SOURCES}
    return tuple(_leaves(value))


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def _number(value: Any) -> int | None:
    if isinstance(value, str):
        digits = value.strip("[] ")
        return int(digits) if digits.isdecimal() and len(digits) <= 4 else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            if isinstance(each, int | float) and not isinstance(each, bool):
                yield f"{key.replace('_', ' ')} {each}"
            else:
                yield from _leaves(each)
    elif isinstance(value, list):
        for each in value:
            yield from _leaves(each)
    elif isinstance(value, str):
        yield value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)


def _are_types(value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return all(isinstance(each, str) and each in _TYPES for each in names)


def _holds_schemas(key: str, value: Any) -> bool:
    return key in _NAMED_SCHEMAS and isinstance(value, dict)


def _problems(value: Any, schema: Any, root: _Root, path: str, depth: int) -> Iterator[str]:
    root.steps_left -= 1
    if root.steps_left < 0:
        yield f"{path} cannot be checked, the schema refers to itself too often"
        return
    if depth > _MOST_DEPTH or schema is True or not isinstance(schema, dict):
        if schema is False:
            yield f"{path} is not allowed"
        return
    reference = schema.get("$ref")
    if isinstance(reference, str):
        yield from _problems(value, _resolved(reference, root), root, path, depth + 1)
    yield from _type_problems(value, schema, path)
    yield from _bound_problems(value, schema, path)
    if isinstance(value, dict):
        yield from _object_problems(value, schema, root, path, depth)
    if isinstance(value, list):
        items = schema.get("items")
        for index, each in enumerate(value):
            yield from _problems(each, items, root, f"{path}[{index}]", depth + 1)
    yield from _combination_problems(value, schema, root, path, depth)


def _resolved(reference: str, root: _Root) -> Any:
    if not reference.startswith("#"):
        return True
    target = root.schema
    for part in reference.removeprefix("#").strip("/").split("/"):
        if part:
            target = target.get(part) if isinstance(target, dict) else None
    return target


def _type_problems(value: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    wanted = schema.get("type")
    names = [wanted] if isinstance(wanted, str) else wanted if isinstance(wanted, list) else []
    known = [_TYPES[name] for name in names if name in _TYPES]
    if known and not any(holds(value) for holds in known):
        yield f"{path} is not of type {' or '.join(map(str, names))}"
    if isinstance(schema.get("enum"), list) and not any(
        value == each and isinstance(value, bool) == isinstance(each, bool)
        for each in schema["enum"]
    ):
        yield f"{path} is none of the values allowed"
    if "const" in schema and value != schema["const"]:
        yield f"{path} is not the value required"


def _bound_problems(value: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value < _bound(schema, "minimum", -math.inf):
            yield f"{path} is below the minimum"
        if value > _bound(schema, "maximum", math.inf):
            yield f"{path} is above the maximum"
        if value <= _bound(schema, "exclusiveMinimum", -math.inf):
            yield f"{path} is not above the minimum"
        if value >= _bound(schema, "exclusiveMaximum", math.inf):
            yield f"{path} is not below the maximum"
    for kind, least, most in (
        (str, "minLength", "maxLength"),
        (list, "minItems", "maxItems"),
        (dict, "minProperties", "maxProperties"),
    ):
        if isinstance(value, kind):
            size = len(value)
            if not _bound(schema, least, 0) <= size <= _bound(schema, most, math.inf):
                yield f"{path} has a size of {size}, which is not allowed"


def _bound(schema: Mapping[str, Any], name: str, default: float) -> float:
    value = schema.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else default


def _object_problems(
    value: Mapping[str, Any], schema: Mapping[str, Any], root: _Root, path: str, depth: int
) -> Iterator[str]:
    required = schema.get("required")
    for name in required if isinstance(required, list) else ():
        if name not in value:
            yield f"{path} has no property {name!r}"
    properties = schema.get("properties")
    known = properties if isinstance(properties, dict) else {}
    further = schema.get("additionalProperties", True)
    for name, each in value.items():
        if name in known:
            yield from _problems(each, known[name], root, f"{path}.{name}", depth + 1)
        elif "patternProperties" not in schema:
            yield from _problems(each, further, root, f"{path}.{name}", depth + 1)


def _combination_problems(
    value: Any, schema: Mapping[str, Any], root: _Root, path: str, depth: int
) -> Iterator[str]:
    def holds(each: Any) -> bool:
        return next(_problems(value, each, root, path, depth + 1), None) is None

    every, some, one = (schema.get(name) for name in ("allOf", "anyOf", "oneOf"))
    for each in every if isinstance(every, list) else ():
        yield from _problems(value, each, root, path, depth + 1)
    if isinstance(some, list) and some and not any(map(holds, some)):
        yield f"{path} follows none of the forms allowed"
    if isinstance(one, list) and one and sum(map(holds, one)) != 1:
        yield f"{path} does not follow exactly one of the forms allowed"
