"""Ollama servers over HTTP."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Self, TypeVar

import httpx
import orjson

from services.balancer.adapters import wire, wire_answers, wire_listings, wire_models, wire_requests
from services.balancer.adapters.connections import ConnectionPool
from services.balancer.adapters.pauses import Pauses
from services.balancer.adapters.replies import ReplyReader, finish
from services.balancer.adapters.transport import AiohttpTransport
from services.balancer.core.failures import AttemptFailed, FailureKind
from services.balancer.core.models import LoadedModel, ModelDescription, ServerReport
from services.balancer.core.requests import (
    Completion,
    Delta,
    EmbeddingReply,
    GenerationRequest,
    Operation,
    PullProgress,
)

__all__ = ["OllamaConnection", "OllamaServer"]

T = TypeVar("T")

_IDLE_CONNECTION_SECONDS = 30.0
_UNLOAD_SECONDS = 10.0
_LISTING_BYTES = 8 * 1024 * 1024
_SHORT_REPLY_BYTES = 64 * 1024
_EMBEDDINGS_BYTES = 64 * 1024 * 1024
# To write base64 of this takes some milliseconds.
_LARGE_IMAGES_BYTES = 1024 * 1024
_PROBE_TEXTS = ("a",)
_PATHS = {Operation.CHAT: "/api/chat", Operation.GENERATE: "/api/generate"}


class OllamaConnection:
    """The connections to one server, as long as the context is open.

    Requests go to the transport as they are: what `httpx.AsyncClient` would do to each (merge the
    address, look for cookies, redirects and credentials) takes 150 us of CPU, and a request of
    httpx another 50, of which nothing is wanted here. Must be made within a running event loop.

    Args:
        url: Scheme, host and port.
        connect_limit_seconds: Longest time to connect, the look-up of the name included.
        pool: Shows them with those to other servers.
    """

    def __init__(self, url: str, *, connect_limit_seconds: float, pool: ConnectionPool) -> None:
        self._url = url
        self._transport = AiohttpTransport(idle_limit_seconds=_IDLE_CONNECTION_SECONDS, pool=pool)
        self._headers = [
            ("Host", httpx.URL(url).netloc.decode("ascii")),
            ("Content-Type", "application/json"),
            ("Accept-Encoding", "identity"),
        ]
        self._connect_limit_seconds = connect_limit_seconds

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.aclose()

    async def send(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> httpx.Response:
        """Sends a request and returns as soon as the head of the reply is there.

        Args:
            method: GET or POST.
            path: One of the few paths of the API.
            body: JSON, or None.
            headers: Trace context.

        Raises:
            httpx.TransportError: There is no reply.
        """
        # A reply may be silent longer before its first token than later, for which the transport
        # has one and the same limit; so silence is limited by whoever reads, not there.
        return await self._transport.send(
            method,
            self._url + path,
            headers=[*self._headers, *headers.items()],
            content=body or b"",
            connect_limit_seconds=self._connect_limit_seconds,
        )


class OllamaServer:
    """One Ollama server, a `ModelServer`.

    Args:
        connection: The connections to it.
        first_token_limit_seconds: Longest silence before the first token or the vectors.
        stall_limit_seconds: Longest silence between two tokens.
        pauses: When this process stood still, which counts for no limit.
    """

    def __init__(
        self,
        connection: OllamaConnection,
        *,
        pauses: Pauses,
        first_token_limit_seconds: float,
        stall_limit_seconds: float,
    ) -> None:
        self._connection = connection
        self._first_token_limit_seconds = first_token_limit_seconds
        self._stall_limit_seconds = stall_limit_seconds
        self._replies = ReplyReader(pauses)

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
                self._inquire("/api/tags", wire_listings.installed_models, limit_seconds)
            )
            loaded = group.create_task(
                self._inquire("/api/ps", wire_listings.loaded_models, limit_seconds)
            )
        body = version.result()
        if isinstance(body, AttemptFailed):
            raise body
        return ServerReport(
            version=str(wire.parse_object(body).get("version", "")),
            installed=_unless_failed(installed.result()),
            loaded=_unless_failed(loaded.result()),
        )

    async def loaded(self, limit_seconds: float) -> tuple[LoadedModel, ...]:
        """Asks for the models in memory."""
        result = await self._inquire("/api/ps", wire_listings.loaded_models, limit_seconds)
        if isinstance(result, AttemptFailed):
            raise result
        return result

    async def describe(self, model_name: str) -> ModelDescription:
        """Asks what a model can do."""
        body = orjson.dumps({"model": model_name})
        limit = self._first_token_limit_seconds
        reply = await self._post("/api/show", body, limit, limit_bytes=_LISTING_BYTES)
        return wire_listings.model_description(reply)

    async def generate(
        self,
        request: GenerationRequest,
        *,
        model_name: str,
        headers: Mapping[str, str],
        keep_alive: str | int | None = None,
        context_token_count: int | None = None,
        continuation: str = "",
        first_token_limit_seconds: float | None = None,
        stall_limit_seconds: float | None = None,
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Generates text; closing the generator closes the connection, which ends the work."""

        def write_body() -> bytes:
            return wire_requests.generation_body(
                request,
                model_name,
                keep_alive=keep_alive,
                context_token_count=context_token_count,
                continuation=continuation,
            )

        large = wire_requests.image_bytes(request) > _LARGE_IMAGES_BYTES
        body = await asyncio.to_thread(write_body) if large else write_body()
        path = _PATHS[request.operation]
        limit = _given(first_token_limit_seconds, self._first_token_limit_seconds)
        async with self._reply("POST", path, limit, body=body, headers=headers) as response:
            reader = wire_answers.GenerationReader(model_name)
            stall_limit = _given(stall_limit_seconds, self._stall_limit_seconds)
            async with aclosing(self._replies.read_pieces(response, stall_limit)) as pieces:
                async for piece in pieces:
                    for item in reader.feed(piece):
                        if isinstance(item, Completion):
                            await finish(pieces)
                            yield item
                            return
                        yield item
            for item in reader.end():
                yield item
                if isinstance(item, Completion):
                    return
        raise wire.broken_reply("the reply ended without its final line")

    async def embed(
        self,
        texts: Sequence[str],
        *,
        model_name: str,
        headers: Mapping[str, str],
        keep_alive: str | int | None = None,
        dimension: int | None = None,
        context_token_count: int | None = None,
        limit_seconds: float | None = None,
    ) -> EmbeddingReply:
        """Turns texts into vectors."""
        body = wire_requests.embedding_body(
            texts,
            model_name,
            keep_alive=keep_alive,
            dimension=dimension,
            context_token_count=context_token_count,
        )
        limit = _given(limit_seconds, self._first_token_limit_seconds)
        async with self._reply("POST", "/api/embed", limit, body=body, headers=headers) as response:
            reply = await self._replies.read_body(
                response, _EMBEDDINGS_BYTES, self._stall_limit_seconds
            )
        return wire_answers.embedding_reply(reply, len(texts), model_name)

    async def load(
        self,
        model_name: str,
        *,
        embedding: bool,
        keep_alive: str | int | None,
        context_token_count: int | None,
        limit_seconds: float,
    ) -> float:
        """Loads a model and returns the seconds it took."""
        body = wire_models.load_body(
            model_name,
            embedding=embedding,
            keep_alive=keep_alive,
            context_token_count=context_token_count,
        )
        path = "/api/embed" if embedding else "/api/generate"
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        async with self._reply("POST", path, limit_seconds, body=body) as response:
            reply = await self._replies.read_body(response, _SHORT_REPLY_BYTES, limit_seconds)
        return wire_models.load_seconds(reply, model_name) or loop.time() - began_at

    async def unload(self, model_name: str, *, limit_seconds: float = _UNLOAD_SECONDS) -> None:
        """Lets a model go from memory as soon as it is idle."""
        body = wire_models.unload_body(model_name)
        reply = await self._post("/api/generate", body, limit_seconds)
        wire_models.check_completed(reply, model_name)

    async def probe(
        self,
        model_name: str,
        embedding: bool,  # noqa: FBT001
        limit_seconds: float,
        *,
        context_token_count: int | None = None,
    ) -> None:
        """Has a loaded model generate one token, or embed one text."""
        if embedding:
            await self.embed(
                _PROBE_TEXTS, model_name=model_name, headers={}, limit_seconds=limit_seconds
            )
            return
        body = wire_models.probe_body(model_name, context_token_count=context_token_count)
        reply = await self._post("/api/generate", body, limit_seconds)
        wire_models.check_completed(reply, model_name)

    async def pull(self, model_name: str) -> AsyncGenerator[PullProgress, None]:
        """Downloads a model; closing the generator ends the download."""
        body = wire_models.pull_body(model_name)
        # Verifying a large file is as silent as loading it.
        limit = self._first_token_limit_seconds
        async with self._reply("POST", "/api/pull", limit, body=body) as response:
            reader = wire_models.PullReader()
            async with aclosing(self._replies.read_pieces(response, limit)) as pieces:
                async for piece in pieces:
                    for progress in reader.feed(piece):
                        yield progress
                        if progress.succeeded:
                            await finish(pieces)
                            return
            for progress in reader.end():
                yield progress
                if progress.succeeded:
                    return
        raise wire.broken_reply("the download ended without success")

    async def _inquire(
        self, path: str, parse: Callable[[bytes], T], limit_seconds: float
    ) -> T | AttemptFailed:
        try:
            async with self._reply("GET", path, limit_seconds) as response:
                return parse(await self._replies.read_body(response, _LISTING_BYTES, limit_seconds))
        except AttemptFailed as failure:
            return failure

    async def _post(
        self, path: str, body: bytes, limit_seconds: float, *, limit_bytes: int = _SHORT_REPLY_BYTES
    ) -> bytes:
        async with self._reply("POST", path, limit_seconds, body=body) as response:
            return await self._replies.read_body(response, limit_bytes, limit_seconds)

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
        with self._replies.failures_as(FailureKind.CONNECTION, FailureKind.TIMEOUT, limit_seconds):
            response = await self._connection.send(method, path, body, headers or {})
        try:
            if response.status_code != 200:
                text = await self._replies.read_body(response, _SHORT_REPLY_BYTES, limit_seconds)
                raise wire.error_reply(response.status_code, text)
            yield response
        finally:
            await response.aclose()


def _given(limit_seconds: float | None, usual_seconds: float) -> float:
    return usual_seconds if limit_seconds is None else limit_seconds


def _unless_failed(result: T | AttemptFailed) -> T | None:
    return None if isinstance(result, AttemptFailed) else result
