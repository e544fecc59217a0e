"""Faults to order: what a test or a demonstration wants to go wrong."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from services.standin.core.decode import DecodeError


class DropConnectionError(Exception):
    """The connection is to be cut as if the server had died."""


class BreakStreamError(Exception):
    """The model is to fail in the middle of its answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong with a request that does work; the default is nothing.

    Args:
        status: Answer with this HTTP status at once; 0 leaves the request alone.
        message: Error text of that answer.
        delay_seconds: Wait this long in the slot before the first token.
        hang: Hold the slot and never answer.
        drop_after_tokens: Cut the connection after so many tokens.
        error_line_after_tokens: Fail in-band after so many tokens.
        no_done: End the answer without its final line.
    """

    status: int = 0
    message: str = "fault injected into the stand-in"
    delay_seconds: float = 0.0
    hang: bool = False
    drop_after_tokens: int | None = None
    error_line_after_tokens: int | None = None
    no_done: bool = False

    def check(self, tokens: int) -> None:
        """Fail if the answer is to break after so many tokens.

        Raises:
            DropConnectionError: The connection is to be cut here.
            BreakStreamError: The model is to fail here.
        """
        if self.drop_after_tokens == tokens:
            raise DropConnectionError
        if self.error_line_after_tokens == tokens:
            raise BreakStreamError

    def names(self) -> list[str]:
        """The names of the fields that differ from the default."""
        return [
            field.name
            for field in fields(self)
            if field.name != "message" and getattr(self, field.name) != field.default
        ]


NO_FAULT = Fault()


@dataclass(slots=True, kw_only=True)
class _Rule:
    fault: Fault
    path: str
    remaining: int | None


_KINDS: dict[str, tuple[type, ...]] = {
    "status": (int,),
    "message": (str,),
    "delay_seconds": (int, float),
    "hang": (bool,),
    "drop_after_tokens": (int,),
    "error_line_after_tokens": (int,),
    "no_done": (bool,),
}
_RULE_KINDS = _KINDS | {"fail_next": (int,), "count": (int,), "path": (str,)}


class FaultPlan:
    """The rules of one server; a request is subject to the oldest rule that has uses left."""

    def __init__(self) -> None:
        self._rules: list[_Rule] = []

    def add(self, values: Mapping[str, Any]) -> None:
        """Add a rule.

        Args:
            values: Fields of `Fault`; `fail_next` (so many requests fail with `status`, by default
                500) or `count` (so many requests are affected, by default all); `path` limits the
                rule to one endpoint.

        Raises:
            DecodeError: A field is unknown or of the wrong type.
        """
        for name, value in values.items():
            kinds = _RULE_KINDS.get(name)
            if kinds is None or not isinstance(value, kinds):
                raise DecodeError(f"fault field {name!r} is unknown or of the wrong type")
        arguments = {name: value for name, value in values.items() if name in _KINDS}
        fail_next = values.get("fail_next")
        if fail_next is not None:
            arguments.setdefault("status", 500)
        self._rules.append(
            _Rule(
                fault=Fault(**arguments),
                path=values.get("path", ""),
                remaining=values.get("count", fail_next),
            )
        )

    def take(self, path: str) -> Fault:
        """The fault for a request that does work; uses up one count of its rule."""
        for rule in self._rules:
            if rule.path in {"", path} and rule.remaining != 0:
                if rule.remaining is not None:
                    rule.remaining -= 1
                return rule.fault
        return NO_FAULT

    def clear(self) -> None:
        """Remove all rules."""
        self._rules.clear()

    def dump(self) -> list[dict[str, Any]]:
        """The rules as JSON objects."""
        return [
            {"path": rule.path, "remaining": rule.remaining}
            | {name: getattr(rule.fault, name) for name in rule.fault.names()}
            for rule in self._rules
        ]
