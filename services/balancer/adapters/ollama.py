"""Ollama servers over HTTP."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TypeVar

import httpx
import orjson

from services.balancer.adapters import wire
from services.balancer.adapters.transport import AiohttpTransport
from services.balancer.core.failures import AttemptFailed, FailureKind
from services.balancer.core.models import ModelDescription, ServerReport
from services.balancer.core.requests import (
    Completion,
    EmbeddingReply,
    GenerationRequest,
    Operation,
    TextDelta,
)

__all__ = ["OllamaServer", "open_client"]

T = TypeVar("T")

_IDLE_CONNECTION_SECONDS = 30.0
# After its last line a reply is at its end, unless the network cut between the two.
_END_OF_REPLY_SECONDS = 0.25
_LISTING_BYTES = 8 * 1024 * 1024
_ERROR_BYTES = 64 * 1024
_EMBEDDINGS_BYTES = 64 * 1024 * 1024
_PATHS = {Operation.CHAT: "/api/chat", Operation.GENERATE: "/api/generate"}


def open_client(url: str, *, connect_limit_seconds: float) -> httpx.AsyncClient:
    """Opens what keeps the connections to one server.

    Args:
        url: Scheme, host and port.
        connect_limit_seconds: Longest time to connect, the look-up of the name included.
    """
    return httpx.AsyncClient(
        base_url=url,
        transport=AiohttpTransport(idle_limit_seconds=_IDLE_CONNECTION_SECONDS),
        # A reply may be silent longer before its first token than later, for which httpx has one
        # and the same limit; so silence is limited here, not there.
        timeout=httpx.Timeout(None, connect=connect_limit_seconds),
        headers={"Content-Type": "application/json", "Accept-Encoding": "identity"},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        follow_redirects=False,
        trust_env=False,
    )


class OllamaServer:
    """One Ollama server, a `ModelServer`.

    Args:
        client: Keeps the connections to it.
        first_token_limit_seconds: Longest silence before the first token or the vectors.
        stall_limit_seconds: Longest silence between two tokens.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        first_token_limit_seconds: float,
        stall_limit_seconds: float,
    ) -> None:
        self._client = client
        self._first_token_limit_seconds = first_token_limit_seconds
        self._stall_limit_seconds = stall_limit_seconds

    async def check(self, limit_seconds: float) -> ServerReport:
        """Asks for version, models on disk and models in memory, all at once.

        A server that is busy loading can be slow to list its models; only one that does not
        tell its version has failed.
        """
        async with asyncio.TaskGroup() as group:
            version = group.create_task(
                self._inquire("/api/version", lambda body: body, limit_seconds)
            )
            installed = group.create_task(
                self._inquire("/api/tags", wire.installed_models, limit_seconds)
            )
            loaded = group.create_task(self._inquire("/api/ps", wire.loaded_models, limit_seconds))
        body = version.result()
        if isinstance(body, AttemptFailed):
            raise body
        return ServerReport(
            version=str(wire.parse_object(body).get("version", "")),
            installed=_unless_failed(installed.result()),
            loaded=_unless_failed(loaded.result()),
        )

    async def describe(self, model_name: str) -> ModelDescription:
        """Asks what a model can do."""
        body = orjson.dumps({"model": model_name})
        limit = self._first_token_limit_seconds
        async with self._reply("POST", "/api/show", limit, body=body) as response:
            return wire.model_description(await _read(response, _LISTING_BYTES, limit))

    async def generate(
        self, request: GenerationRequest, *, model_name: str, headers: Mapping[str, str]
    ) -> AsyncGenerator[TextDelta | Completion, None]:
        """Generates text; closing the generator closes the connection, which ends the work."""
        body = wire.generation_body(request, model_name)
        limit = self._first_token_limit_seconds
        path = _PATHS[request.operation]
        async with self._reply("POST", path, limit, body=body, headers=headers) as response:
            reader = wire.GenerationReader()
            async with aclosing(self._chunks(response)) as chunks:
                async for chunk in chunks:
                    for item in reader.feed(chunk):
                        if isinstance(item, Completion):
                            await _finish(chunks)
                            yield item
                            return
                        yield item
            for item in reader.end():
                yield item
                if isinstance(item, Completion):
                    return
        raise AttemptFailed(
            FailureKind.BROKEN_REPLY, "the reply ended without its final line", status_code=200
        )

    async def _chunks(self, response: httpx.Response) -> AsyncGenerator[bytes, None]:
        limit = self._stall_limit_seconds
        chunks = response.aiter_raw()
        while True:
            async with _failures_as(FailureKind.BROKEN_REPLY, FailureKind.STALLED, limit):
                chunk = await anext(chunks, b"")
            if not chunk:
                return
            yield chunk

    async def embed(
        self, texts: Sequence[str], *, model_name: str, headers: Mapping[str, str]
    ) -> EmbeddingReply:
        """Turns texts into vectors."""
        body = wire.embedding_body(texts, model_name)
        limit = self._first_token_limit_seconds
        async with self._reply("POST", "/api/embed", limit, body=body, headers=headers) as response:
            reply = await _read(response, _EMBEDDINGS_BYTES, self._stall_limit_seconds)
        return wire.embedding_reply(reply, len(texts))

    async def _inquire(
        self, path: str, parse: Callable[[bytes], T], limit_seconds: float
    ) -> T | AttemptFailed:
        try:
            async with self._reply("GET", path, limit_seconds) as response:
                return parse(await _read(response, _LISTING_BYTES, limit_seconds))
        except AttemptFailed as failure:
            return failure

    @asynccontextmanager
    async def _reply(
        self,
        method: str,
        path: str,
        limit_seconds: float,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """Opens a reply with status 200; at the end closes the connection if it is not read up."""
        request = self._client.build_request(method, path, content=body, headers=headers)
        async with _failures_as(FailureKind.CONNECTION, FailureKind.TIMEOUT, limit_seconds):
            response = await self._client.send(request, stream=True)
        try:
            if response.status_code != 200:
                text = await _read(response, _ERROR_BYTES, limit_seconds)
                raise wire.error_reply(response.status_code, text)
            yield response
        finally:
            await response.aclose()


def _unless_failed(result: T | AttemptFailed) -> T | None:
    return None if isinstance(result, AttemptFailed) else result


async def _read(response: httpx.Response, limit_bytes: int, limit_seconds: float) -> bytes:
    body = bytearray()
    async with _failures_as(FailureKind.BROKEN_REPLY, FailureKind.STALLED, limit_seconds):
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > limit_bytes:
                raise AttemptFailed(
                    FailureKind.BROKEN_REPLY, f"the reply exceeds {limit_bytes} bytes"
                )
    return bytes(body)


async def _finish(chunks: AsyncIterator[bytes]) -> None:
    """Reads up to the end, so that the connection can serve again; gives up soon."""
    with suppress(AttemptFailed, TimeoutError):
        async with asyncio.timeout(_END_OF_REPLY_SECONDS):
            async for _ in chunks:
                pass


@asynccontextmanager
async def _failures_as(
    broken: FailureKind, silent: FailureKind, limit_seconds: float
) -> AsyncIterator[None]:
    """Turns what httpx raises into `AttemptFailed`.

    Args:
        broken: Kind of failure where the connection does not come about or breaks.
        silent: Kind of failure where nothing comes within the limit.
        limit_seconds: The limit.
    """
    try:
        async with asyncio.timeout(limit_seconds):
            yield
    except httpx.ConnectTimeout as error:
        raise AttemptFailed(FailureKind.CONNECTION, "timed out while connecting") from error
    except TimeoutError as error:
        raise AttemptFailed(silent, f"silent for {limit_seconds:g} s") from error
    except httpx.TransportError as error:
        raise AttemptFailed(broken, str(error)) from error
