"""Bytes on the wire: JSON as Go writes it, NDJSON streams, and error replies."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson
from aiohttp import web

JSON_TYPE = "application/json; charset=utf-8"
STREAM_ERROR_TYPE = "application/json"
STREAM_TYPE = "application/x-ndjson"

CRASH_TEXT = (
    "model runner has unexpectedly stopped, this may be due to resource limitations or an internal "
    "error, check ollama server logs for details"
)
BROKEN_STREAM_TEXT = "an error was encountered while running the model: unexpected EOF"
QUEUE_FULL_TEXT = "server busy, please try again.  maximum pending requests exceeded"
TOO_LONG_TEXT = "the input length exceeds the context length"


class ApiError(Exception):
    """A request that ends with an error reply.

    Args:
        status: HTTP status.
        message: The text of the reply's `error` field.
        content_type: Content type of the reply.
    """

    def __init__(self, status: int, message: str, content_type: str = JSON_TYPE) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.content_type = content_type


def encode(value: Mapping[str, Any] | str) -> bytes:
    """Serialise as Go does: `<`, `>` and `&` escaped, other text as UTF-8, float32 shortest."""
    text = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return text.replace(b"<", b"\\u003c").replace(b">", b"\\u003e").replace(b"&", b"\\u0026")


def reply(
    value: Mapping[str, Any], status: int = 200, content_type: str = JSON_TYPE
) -> web.Response:
    """A reply of one JSON object."""
    return web.Response(body=encode(value), status=status, headers={"Content-Type": content_type})


def plain(text: str, status: int = 200, content_type: str = "text/plain") -> web.Response:
    """A reply of plain text."""
    return web.Response(body=text.encode(), status=status, headers={"Content-Type": content_type})


def without_zeros(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what Go's omitempty leaves out: zeros, empty texts and empty lists."""
    return {name: value for name, value in fields.items() if value}


@lru_cache(maxsize=65_536)
def encode_inner(text: str) -> bytes:
    """A JSON string without its quotes."""
    return encode(text)[1:-1]


class LineStream:
    """An NDJSON reply whose status and headers leave with its first line.

    Args:
        request: The request to answer.
    """

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._response = web.StreamResponse(headers={"Content-Type": STREAM_TYPE})

    @property
    def started(self) -> bool:
        """Whether the status has been sent."""
        return self._response.prepared

    async def write(self, value: Mapping[str, Any]) -> None:
        """Send one line."""
        await self.write_bytes(encode(value) + b"\n")

    async def write_bytes(self, lines: bytes) -> None:
        """Send whole lines."""
        if not self._response.prepared:
            await self._response.prepare(self._request)
        await self._response.write(lines)

    def write_half_a_chunk(self) -> None:
        """Announce more bytes than follow."""
        write = getattr(self._request.transport, "write", None)
        if self.started and write is not None:
            write(b'100\r\n{"model":"')

    async def end(self) -> web.StreamResponse:
        """End the reply."""
        if not self._response.prepared:
            await self._response.prepare(self._request)
        await self._response.write_eof()
        return self._response
