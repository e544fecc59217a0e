"""Faults to order: what a test or a demonstration wants to go wrong, and for whom."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, fields
from inspect import get_annotations
from typing import Any

from services.common.clock import Clock
from services.standin.core.decode import DecodeError
from services.standin.core.names import parse_name


class DropConnectionError(Exception):
    """The connection is to be cut as if the server had died."""


class BreakStreamError(Exception):
    """The model is to fail in the middle of its answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong; the default is nothing.

    Args:
        status: Answer with this HTTP status at once; 0 leaves the request alone.
        message: Error text of that answer, or of a load that fails.
        delay_seconds: Wait this long, in the slot and before the first token.
        hang: Hold the slot and never answer.
        drop_after_tokens: Cut the connection after so many tokens.
        cut_chunk_after_tokens: Cut it in the middle of the chunk after so many tokens.
        error_line_after_tokens: Fail in-band after so many tokens.
        kill_child_after_tokens: The same, for all requests of the model, which is loaded anew.
        garbage_after_tokens: Send a line that is no JSON after so many tokens, and go on.
        repeat_guard: Repeat one token until the server's guard ends the answer without its end.
        no_done: End the answer without its final line.
        leak_on_disconnect: Keep the slot for ever if the client leaves a running stream.
        echo_model: Name this model in the reply.
        embeddings_missing: Leave out so many vectors; add so many where negative.
        embedding_dimensions: Send vectors of this length.
        embedding_nan: Send vectors whose first number is NaN.
        version: Report this version.
        load_fails: The load fails when its time is over.
        load_delay_seconds: The load takes so much longer.
        load_stalls: The load makes no progress until the server gives up on it.
        slowdown: All requests run so many times slower.
        absent: The model is not here.
        digest: The model is listed with this digest; with `path`, in that listing only.
        no_answer: Connections are accepted and requests read, but nothing is answered meanwhile.
        refuse: The listener is closed and all connections are cut.
        kill_child: The model's process dies now; its requests fail, the next one loads it again.
    """

    status: int = 0
    message: str = ""
    delay_seconds: float = 0.0
    hang: bool = False
    drop_after_tokens: int | None = None
    cut_chunk_after_tokens: int | None = None
    error_line_after_tokens: int | None = None
    kill_child_after_tokens: int | None = None
    garbage_after_tokens: int | None = None
    repeat_guard: bool = False
    no_done: bool = False
    leak_on_disconnect: bool = False
    echo_model: str = ""
    embeddings_missing: int = 0
    embedding_dimensions: int = 0
    embedding_nan: bool = False
    version: str = ""
    load_fails: bool = False
    load_delay_seconds: float = 0.0
    load_stalls: bool = False
    slowdown: float = 1.0
    absent: bool = False
    digest: str = ""
    no_answer: bool = False
    refuse: bool = False
    kill_child: bool = False

    def next_break(self, tokens: int) -> int | None:
        """The first number of tokens, from `tokens` on, at which something happens."""
        breaks = (
            self.drop_after_tokens,
            self.cut_chunk_after_tokens,
            self.error_line_after_tokens,
            self.kill_child_after_tokens,
            self.garbage_after_tokens,
        )
        return min((at for at in breaks if at is not None and at >= tokens), default=None)

    def check(self, tokens: int) -> None:
        """Fail if the answer is to break after so many tokens.

        Raises:
            DropConnectionError: The connection is to be cut here.
            BreakStreamError: The model is to fail here.
        """
        if tokens in (self.drop_after_tokens, self.cut_chunk_after_tokens):
            raise DropConnectionError
        if tokens in (self.error_line_after_tokens, self.kill_child_after_tokens):
            raise BreakStreamError

    def names(self) -> list[str]:
        """The names of the fields that differ from the default."""
        return [
            field.name
            for field in fields(self)
            if field.name != "message" and getattr(self, field.name) != field.default
        ]


NO_FAULT = Fault()

_LOAD = frozenset({"load_fails", "load_delay_seconds", "load_stalls"})
_STATE = frozenset({"slowdown", "absent", "digest", "no_answer", "refuse", "kill_child"})
_NUMBER = (int, float)
_TYPES: dict[Any, tuple[type, ...]] = {
    int: (int,),
    int | None: (int,),
    str: (str,),
    float: _NUMBER,
    bool: (bool,),
}
_KINDS = {name: _TYPES[kind] for name, kind in get_annotations(Fault).items()}
_RULE_KINDS: dict[str, tuple[type, ...]] = _KINDS | {
    "fail_next": (int,),
    "count": (int,),
    "path": (str,),
    "model": (str,),
    "probability": _NUMBER,
    "seed": (int,),
    "for_seconds": _NUMBER,
}


@dataclass(slots=True, kw_only=True)
class _Rule:
    fault: Fault
    scope: str
    path: str
    model: str
    remaining: int | None
    probability: float
    rng: random.Random
    until: float | None

    def applies(self, scope: str, path: str, model: str) -> bool:
        return (
            self.scope == scope
            and self.path in {"", path}
            and self.model in {"", _key(model)}
            and self.remaining != 0
        )

    def use(self) -> bool:
        if self.probability < 1 and self.rng.random() >= self.probability:
            return False
        if self.remaining is not None:
            self.remaining -= 1
        return True


class FaultPlan:
    """The rules of one server; a request is subject to the oldest rule that has uses left.

    Args:
        clock: Ends rules that last for a time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rules: list[_Rule] = []

    def add(self, values: Mapping[str, Any]) -> Fault:
        """Add a rule.

        Args:
            values: Fields of `Fault`, all of one kind (of requests, of loads, or of the server);
                `fail_next` (so many requests fail with `status`, by default 500) or `count` (so
                many are affected, by default all); `path` and `model` limit the rule;
                `probability` affects that share of them, drawn with `seed`; `for_seconds` ends it.

        Raises:
            DecodeError: A field is unknown or of the wrong type, or they do not go together.
        """
        for name, value in values.items():
            if not _fits(value, _RULE_KINDS.get(name, ())):
                raise DecodeError(f"fault field {name!r} is unknown or of the wrong type")
        arguments = {name: value for name, value in values.items() if name in _KINDS}
        fail_next = values.get("fail_next")
        if fail_next is not None:
            arguments.setdefault("status", 500)
        fault = Fault(**arguments)
        seconds = values.get("for_seconds")
        if fault.refuse and seconds is None:
            raise DecodeError("refuse needs for_seconds: nothing could end it")
        if fault.slowdown <= 0:
            raise DecodeError("slowdown must be positive")
        if fault.kill_child:
            # Done at once; there is nothing to keep.
            return fault
        self._rules.append(
            _Rule(
                fault=fault,
                scope=_scope(set(fault.names())),
                path=values.get("path", ""),
                model=_key(values.get("model", "")),
                remaining=values.get("count", fail_next),
                probability=values.get("probability", 1.0),
                rng=random.Random(values.get("seed", 0)),
                until=None if seconds is None else self._clock.monotonic() + seconds,
            )
        )
        return fault

    def take(self, path: str, model: str = "") -> Fault:
        """The fault for a request that does work; uses up one count of its rule."""
        return self._take("request", path, model)

    def take_other(self, path: str) -> Fault:
        """The fault for a request that does no work; none unless a rule names its path."""
        if not any(rule.path == path for rule in self._rules):
            return NO_FAULT
        return self._take("request", path, "")

    def take_load(self, model: str) -> Fault:
        """The fault for a load; uses up one count of its rule."""
        return self._take("load", "", model)

    def slowdown(self, model: str) -> float:
        """How many times slower a model is to run now."""
        ratio = 1.0
        for rule in self._current():
            if rule.applies("state", "", model):
                ratio *= rule.fault.slowdown
        return ratio

    def is_absent(self, model: str) -> bool:
        """Whether a model is to be missing now."""
        return any(
            rule.fault.absent and rule.applies("state", "", model) for rule in self._current()
        )

    def digest(self, path: str, model: str) -> str:
        """The digest with which a listing is to show a model now; empty for its own."""
        rules = (rule for rule in self._current() if rule.applies("state", path, model))
        return next((rule.fault.digest for rule in rules if rule.fault.digest), "")

    @property
    def is_silent(self) -> bool:
        """Whether nothing is to be answered now."""
        return any(rule.fault.no_answer for rule in self._current())

    def clear(self) -> None:
        """Remove all rules."""
        self._rules.clear()

    def dump(self) -> list[dict[str, Any]]:
        """The rules as JSON objects."""
        return [
            {"path": rule.path, "remaining": rule.remaining}
            | ({"model": rule.model} if rule.model else {})
            | ({"probability": rule.probability} if rule.probability < 1 else {})
            | {name: getattr(rule.fault, name) for name in rule.fault.names()}
            for rule in self._current()
        ]

    def _take(self, scope: str, path: str, model: str) -> Fault:
        for rule in self._current():
            if rule.applies(scope, path, model) and rule.use():
                return rule.fault
        return NO_FAULT

    def _current(self) -> list[_Rule]:
        if self._rules:
            now = self._clock.monotonic()
            self._rules = [rule for rule in self._rules if rule.until is None or now < rule.until]
        return self._rules


def _scope(names: set[str]) -> str:
    scopes = {"load" if n in _LOAD else "state" if n in _STATE else "request" for n in names}
    if len(scopes) > 1:
        raise DecodeError("one rule cannot hold faults of requests, of loads and of the server")
    return scopes.pop() if scopes else "request"


def _fits(value: Any, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, kinds)


def _key(text: str) -> str:
    name = parse_name(text) if text else None
    return name.key if name else text
