"""What all replies of an Ollama server have in common: lines, JSON objects, errors."""

from collections.abc import Mapping
from typing import Any

import orjson

from services.balancer.core.failures import AttemptFailed, FailureKind, failure_of_status
from services.balancer.core.names import model_key

__all__ = [
    "MAXIMUM_LINE_BYTES",
    "LineSplitter",
    "broken_reply",
    "check_model",
    "count",
    "error_reply",
    "parse_line",
    "parse_object",
    "seconds",
]

# The final line of a long generation lists the tokens of its context.
MAXIMUM_LINE_BYTES = 8 * 1024 * 1024
_NANOSECONDS = 1e-9
_DEFAULT_HOST = "registry.ollama.ai/"
# Cut off where a server passes a request on, and so not in the reply that it passes back.
_CLOUD_SUFFIXES = (":cloud", "-cloud")
_MOST_CHARACTERS = 100


class LineSplitter:
    """Puts the lines of a reply together again, wherever the network cut them."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._held_bytes = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Takes what came next and returns the lines it completes, without blank ones.

        Raises:
            AttemptFailed: A line grows beyond 8 MiB.
        """
        head, newline, tail = data.rpartition(b"\n")
        lines: list[bytes] = []
        if newline:
            lines = b"".join((*self._pieces, head)).split(b"\n")
            self._pieces, self._held_bytes = [], 0
        if tail:
            self._pieces.append(tail)
            self._held_bytes += len(tail)
            if self._held_bytes > MAXIMUM_LINE_BYTES:
                raise broken_reply("a line of the reply exceeds 8 MiB")
        return [line for line in lines if line.strip()]

    def rest(self) -> list[bytes]:
        """Returns the last line where it lacks its end."""
        rest = b"".join(self._pieces)
        self._pieces, self._held_bytes = [], 0
        return [rest] if rest.strip() else []


def error_reply(status_code: int, body: bytes) -> AttemptFailed:
    """Reads a reply with a status other than 200."""
    try:
        message = str(parse_object(body).get("error", ""))
    except AttemptFailed:
        message = body.decode("utf-8", "replace").strip()
    return failure_of_status(status_code, message)


def parse_line(line: bytes) -> Mapping[str, Any]:
    """Reads a line of a stream, whose status says nothing.

    Raises:
        AttemptFailed: It is no JSON object, or says that the work has failed.
    """
    values = parse_object(line)
    if values.get("error"):
        raise failure_of_status(500, str(values["error"]))
    return values


def parse_object(data: bytes) -> Mapping[str, Any]:
    """Reads a JSON object.

    Raises:
        AttemptFailed: It is something else.
    """
    try:
        values = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise broken_reply("the reply is no JSON") from error
    if not isinstance(values, dict):
        raise broken_reply("the reply is no JSON object")
    return values


def check_model(values: Mapping[str, Any], model_name: str) -> None:
    """Reads from a reply which model it is of: a server names the model as it was asked for it.

    Args:
        values: The reply, or its first line; one that names no model may be of any.
        model_name: The model that was asked for.

    Raises:
        AttemptFailed: It is of another model.
    """
    named = values.get("model", model_name)
    if named != model_name and _key(str(named)) != _key(model_name):
        message = f"the reply is of another model, {str(named)[:_MOST_CHARACTERS]!r}"
        raise broken_reply(message)


def _key(model_name: str) -> str:
    name = model_name.lower().removeprefix(_DEFAULT_HOST)
    for suffix in _CLOUD_SUFFIXES:
        name = name.removesuffix(suffix)
    return model_key(name)


def broken_reply(message: str) -> AttemptFailed:
    """Makes the failure of a reply that is not what it should be."""
    return AttemptFailed(FailureKind.BROKEN_REPLY, message, status_code=200)


def count(values: Mapping[str, Any], name: str) -> int:
    """Reads a number of 0 or more; Ollama leaves out what is 0."""
    value = values.get(name, 0)
    return max(0, value) if isinstance(value, int) else 0


def seconds(values: Mapping[str, Any], name: str) -> float:
    """Reads a duration, which Ollama gives in nanoseconds."""
    return count(values, name) * _NANOSECONDS
