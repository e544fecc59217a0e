"""Typed settings from the environment, with all problems reported at once.

A service declares one frozen dataclass whose fields are made with `setting`. Field `grpc_address`
of the class loaded with prefix `PANNIER_RAG_` is read from `PANNIER_RAG_GRPC_ADDRESS`. Variables
with the prefix that no field claims are refused, since they are most likely misspelt.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = [
    "SettingsError",
    "boolean",
    "byte_size",
    "choice",
    "comma_separated",
    "describe",
    "duration_seconds",
    "host_and_port",
    "integer",
    "load",
    "number",
    "setting",
    "text",
]

T = TypeVar("T")
Parser = Callable[[str], Any]

_DURATION_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE_UNITS = {"": 1, "B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


class SettingsError(Exception):
    """The environment does not describe valid settings.

    Attributes:
        problems: One sentence per problem.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class _Declaration:
    parser: Parser
    help: str
    shown_default: str | None
    secret: bool


def setting(
    parser: Parser, help_text: str, *, default: str | None = None, secret: bool = False
) -> Any:
    """Declares a field of a settings class.

    Args:
        parser: Turns the variable's text into the value; raises ValueError with the rule it breaks.
        help_text: What the setting does, with unit and range; goes into docs/configuration.md.
        default: Text used where the variable is not set; None makes the setting required.
        secret: Whether the value must not be shown.
    """
    declaration = _Declaration(parser, help_text, default, secret)
    metadata = {"setting": declaration}
    if default is None:
        return dataclasses.field(metadata=metadata, repr=not secret)
    # Parsed once here: every default is immutable, and a bad one is found at import.
    return dataclasses.field(default=parser(default), metadata=metadata, repr=not secret)


def load(settings_class: type[T], environment: Mapping[str, str], *, prefix: str) -> T:
    """Reads settings.

    Args:
        settings_class: A frozen dataclass whose fields are all made with `setting`.
        environment: Variables by name; `os.environ` in `__main__`, a plain dict in tests.
        prefix: Begins the name of every variable of this class, for example `PANNIER_RAG_`.

    Raises:
        SettingsError: Values are missing, cannot be parsed or are unknown, or the class's
            `__post_init__` raised ValueError.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    fields = {prefix + field.name.upper(): field for field in _settings_of(settings_class)}
    for variable, field in fields.items():
        declaration: _Declaration = field.metadata["setting"]
        given = environment.get(variable)
        if given is None:
            if declaration.shown_default is None:
                problems.append(f"{variable} is not set: {declaration.help}")
            continue
        try:
            values[field.name] = declaration.parser(given)
        except ValueError as error:
            shown = "***" if declaration.secret else repr(given)
            problems.append(f"{variable}={shown} is not valid: {error}")
    problems += [
        f"{variable} is no known setting; --print-config shows those there are"
        for variable in sorted(environment)
        if variable.startswith(prefix) and variable not in fields
    ]
    if problems:
        raise SettingsError(problems)
    try:
        return settings_class(**values)
    except ValueError as error:
        raise SettingsError([str(error)]) from error


@dataclass(frozen=True, slots=True)
class SettingDescription:
    """One setting as documentation shows it.

    Attributes:
        variable: Name of the environment variable.
        default: Text of the default; None where the setting is required.
        help: What it does.
    """

    variable: str
    default: str | None
    help: str


def describe(settings_class: type[Any], *, prefix: str) -> list[SettingDescription]:
    """Lists the settings of a class in the order of their declaration."""
    return [
        SettingDescription(
            prefix + field.name.upper(),
            field.metadata["setting"].shown_default,
            field.metadata["setting"].help,
        )
        for field in _settings_of(settings_class)
    ]


def _settings_of(settings_class: type[Any]) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(settings_class) if "setting" in field.metadata]


def text(value: str) -> str:
    """Parses text, without white space around it."""
    return value.strip()


def boolean(value: str) -> bool:
    """Parses `true` or `false`."""
    try:
        return {"true": True, "false": False}[value.strip().lower()]
    except KeyError:
        raise ValueError("must be true or false") from None


def integer(minimum: int, maximum: int) -> Callable[[str], int]:
    """Makes a parser of whole numbers in [minimum, maximum]."""

    def parse(value: str) -> int:
        try:
            parsed = int(value)
        except ValueError:
            raise ValueError("must be a whole number") from None
        if not minimum <= parsed <= maximum:
            raise ValueError(f"must be from {minimum} to {maximum}")
        return parsed

    return parse


def number(minimum: float, maximum: float) -> Callable[[str], float]:
    """Makes a parser of numbers in [minimum, maximum]."""

    def parse(value: str) -> float:
        try:
            parsed = float(value)
        except ValueError:
            raise ValueError("must be a number") from None
        if not minimum <= parsed <= maximum:
            raise ValueError(f"must be from {minimum:g} to {maximum:g}")
        return parsed

    return parse


def duration_seconds(minimum: str, maximum: str) -> Callable[[str], float]:
    """Makes a parser of durations such as `250ms`, `30s`, `7d` or `30`, which are seconds."""
    low, high = _parse_duration(minimum), _parse_duration(maximum)

    def parse(value: str) -> float:
        seconds = _parse_duration(value)
        if not low <= seconds <= high:
            raise ValueError(f"must be from {minimum} to {maximum}")
        return seconds

    return parse


def _parse_duration(value: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)(ms|s|m|h|d|)\s*", value)
    if match is None:
        raise ValueError("must be seconds, or a number with one of the units ms, s, m, h, d")
    return float(match[1]) * _DURATION_UNITS[match[2]]


def byte_size(minimum: str, maximum: str) -> Callable[[str], int]:
    """Makes a parser of sizes such as `4MiB` in [minimum, maximum]."""
    low, high = _parse_size(minimum), _parse_size(maximum)

    def parse(value: str) -> int:
        size = _parse_size(value)
        if not low <= size <= high:
            raise ValueError(f"must be from {minimum} to {maximum}")
        return size

    return parse


def _parse_size(value: str) -> int:
    match = re.fullmatch(r"\s*(\d+)\s*(B|KiB|MiB|GiB|)\s*", value)
    if match is None:
        raise ValueError("must be a whole number with one of the units B, KiB, MiB, GiB")
    return int(match[1]) * _SIZE_UNITS[match[2]]


def choice(*allowed: str) -> Callable[[str], str]:
    """Makes a parser that accepts one of the given words."""

    def parse(value: str) -> str:
        word = value.strip().lower()
        if word not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return word

    return parse


def comma_separated(parser: Parser, *, minimum_count: int = 0) -> Callable[[str], tuple[Any, ...]]:
    """Makes a parser of lists separated by commas.

    Args:
        parser: Parses one item.
        minimum_count: Fewest items accepted.
    """

    def parse(value: str) -> tuple[Any, ...]:
        items = tuple(parser(item.strip()) for item in value.split(",") if item.strip())
        if len(items) < minimum_count:
            raise ValueError(f"must name at least {minimum_count}")
        return items

    return parse


def host_and_port(value: str) -> str:
    """Parses `host:port`; an IPv6 address stands in brackets."""
    match = re.fullmatch(r"\s*(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+):(\d{1,5})\s*", value)
    if match is None or not 0 <= int(match[2]) <= 65535:
        raise ValueError("must be host:port, for example 127.0.0.1:50051")
    return f"{match[1]}:{int(match[2])}"
