"""Reads tables of a TOML document, and collects everything that is wrong with them."""

import math
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["Table"]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)", re.ASCII)
_UNIT_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST_SECONDS = 30 * 86_400.0


class Table:
    """A table that is being read; keys that nobody has asked for are problems.

    Args:
        values: What it says.
        place: Where it stands, for messages.
        problems: Receives what is wrong.
    """

    def __init__(self, values: Any, place: str, problems: list[str]) -> None:
        self._values: Mapping[str, Any] = values if isinstance(values, Mapping) else {}
        self._left = dict(self._values)
        self._places: dict[str, str] = {}
        self.place = place
        self.problems = problems
        if not isinstance(values, Mapping):
            problems.append(f"{place}: must be a table")

    def __contains__(self, key: str) -> bool:
        """Whether it says something about a key."""
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        """Yields its keys."""
        return iter(self._values)

    def with_defaults(self, values: Mapping[str, Any], place: str) -> "Table":
        """Returns the table with what another one says beside it; its own word counts.

        Args:
            values: What the other one says.
            place: Where that stands, for messages.
        """
        both = Table({**values, **self._values}, self.place, self.problems)
        both._places = {key: place for key in values if key not in self._values}
        return both

    def complain(self, key: str, text: str) -> None:
        """Notes a problem, once where several tables share what is wrong."""
        place = self._places.get(key, self.place)
        problem = f"{place}.{key}: {text}" if place else f"{key}: {text}"
        if problem not in self.problems:
            self.problems.append(problem)

    def text(self, key: str, default: str | None = None) -> str:
        """Takes a text; one without a default must be there, and say something."""
        value = self._take(key, default)
        if value == "" and default is None:
            self.complain(key, "must not be empty")
        if value is None or isinstance(value, str):
            return value or ""
        self.complain(key, "must be a text")
        return ""

    def flag(self, key: str) -> bool:
        """Takes yes or no; no where nothing is said."""
        value = self._left.pop(key, False)
        if not isinstance(value, bool):
            self.complain(key, "must be true or false")
        return value is True

    def choice(self, key: str, default: str, choices: tuple[str, ...]) -> str:
        """Takes one of several texts."""
        value = self.text(key, default)
        if value not in choices:
            self.complain(key, f"must be one of {', '.join(choices)}")
            return default
        return value

    def number(
        self,
        key: str,
        default: float | None = None,
        *,
        least: float = 0.0,
        most: float = sys.float_info.max,
    ) -> float:
        """Takes a number within a range."""
        value = self._take(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            self.complain(key, "must be a number")
        elif value is not None and not least <= value <= most:
            upper = ", and finite" if most == sys.float_info.max else f" to {most:g}"
            self.complain(key, f"must be from {least:g}{upper}")
        elif value is not None:
            return float(value)
        return least if default is None else default

    def integer(self, key: str, default: int, *, least: int = 0, most: int = 2**53) -> int:
        """Takes a whole number within a range."""
        value = self._take(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            self.complain(key, "must be a whole number")
        elif not least <= value <= most:
            self.complain(key, f"must be from {least} to {most}")
        else:
            return value
        return default

    def seconds(self, key: str, default: float | None = None) -> float:
        """Takes a duration: seconds, or a text such as `90s`, `5m` or `1h`; at most 30 days."""
        value = self._take(key, default)
        written = _DURATION.fullmatch(value) if isinstance(value, str) else None
        if written is not None:
            value = float(written[1]) * _UNIT_SECONDS[written[2]]
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            self.complain(key, "must be a duration such as 90s, 5m or 1h")
        elif value is not None and not 0 < value <= _LONGEST_SECONDS:
            self.complain(key, "must be longer than 0, and at most 30 days")
        elif value is not None:
            return float(value)
        return 1.0 if default is None else default

    def texts(self, key: str) -> tuple[str, ...]:
        """Takes a list of texts; empty where there is none."""
        value = self._left.pop(key, [])
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            return tuple(value)
        self.complain(key, "must be a list of texts")
        return ()

    def weights(self, key: str, default: Mapping[str, float]) -> dict[str, float]:
        """Takes weights by name, of which one at least is above 0."""
        value = self._left.pop(key, default)
        fine = isinstance(value, Mapping) and all(
            isinstance(each, int | float) and not isinstance(each, bool) and 0 <= each < math.inf
            for each in value.values()
        )
        if fine and sum(value.values()) > 0:
            return {str(name): float(weight) for name, weight in value.items()}
        self.complain(key, "must be weights by name, not all 0")
        return dict(default)

    def value(self, key: str) -> Any:
        """Takes whatever there is; None for nothing."""
        return self._left.pop(key, None)

    def tables(self, key: str) -> list["Table"]:
        """Takes a list of tables; empty where there is none."""
        value = self._left.pop(key, [])
        place = f"{self.place}.{key}" if self.place else key
        if not isinstance(value, list):
            self.complain(key, "must be a list of tables")
            return []
        return [Table(each, f"{place}[{i}]", self.problems) for i, each in enumerate(value)]

    def table(self, key: str) -> "Table":
        """Takes a table; an empty one where there is none."""
        place = f"{self.place}.{key}" if self.place else key
        return Table(self._left.pop(key, {}), place, self.problems)

    def end(self) -> None:
        """Notes the keys that nobody has asked for."""
        for key in self._left:
            self.complain(key, "there is no such key")

    def _take(self, key: str, default: Any) -> Any:
        if key not in self._left and default is None:
            self.complain(key, "is missing")
        return self._left.pop(key, default)
