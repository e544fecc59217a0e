"""Search engines that answer in JSON: SearXNG, and whatever else can be described by settings."""

import json
from typing import Any
from urllib.parse import quote

import aiohttp
from opentelemetry.trace import NoOpTracer, Tracer
from yarl import URL

from services.rag.adapters.http_spans import request_span, shown
from services.rag.adapters.web_pages import USER_AGENT
from services.rag.core.web_errors import WebSearchUnavailable
from services.rag.web_port import SearchHit

__all__ = ["JsonFields", "JsonSearch", "SearxngSearch", "at_pointer"]

_MOST_BYTES = 4 * 1024 * 1024
_LONGEST_TEXT = 1_000
_NO_JSON = (
    "SearXNG answered 403, most likely since it does not offer JSON: add json to search.formats in "
    "its settings.yml"
)


class JsonFields:
    """Where in an answer the pages stand, as JSON pointers (RFC 6901).

    Args:
        results: From the answer to the list of pages.
        url: From a page to its address.
        title: From a page to its title; may lead nowhere.
        snippet: From a page to what the engine says of it; may lead nowhere.
    """

    def __init__(self, *, results: str, url: str, title: str, snippet: str) -> None:
        self.results = results
        self.url = url
        self.title = title
        self.snippet = snippet

    def read(self, answer: Any) -> tuple[SearchHit, ...]:
        """Returns the pages of an answer, each once.

        Raises:
            WebSearchUnavailable: There is no list where it should be.
        """
        listed = at_pointer(answer, self.results)
        if not isinstance(listed, list):
            raise WebSearchUnavailable(
                f"the provider's answer has no list at {self.results or 'its top'!r}"
            )
        hits: dict[str, SearchHit] = {}
        for each in listed:
            url = at_pointer(each, self.url)
            if isinstance(url, str) and url:
                title, snippet = (_text(at_pointer(each, p)) for p in (self.title, self.snippet))
                hits.setdefault(url, SearchHit(url, title, snippet))
        return tuple(hits.values())


SEARXNG_FIELDS = JsonFields(results="/results", url="/url", title="/title", snippet="/content")


class _Engine:
    """Asks an engine for JSON. Its address is trusted: it comes from the configuration."""

    def __init__(
        self, fields: JsonFields, headers: dict[str, str], *, told: str, tracer: Tracer | None
    ) -> None:
        self._fields = fields
        self._told_address = told
        self._tracer = tracer or NoOpTracer()
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": USER_AGENT, "Accept": "application/json", **headers},
            trust_env=False,
        )

    async def close(self) -> None:
        """Closes all connections."""
        await self._session.close()

    async def _find(self, url: str, time_limit_seconds: float) -> tuple[SearchHit, ...]:
        try:
            body = await self._get(URL(url, encoded=True), time_limit_seconds)
        except TimeoutError:
            raise WebSearchUnavailable(
                f"the provider did not answer within {time_limit_seconds:.1f} s"
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # The text of the error may repeat the address, and so a key in it.
            raise WebSearchUnavailable(
                f"the provider cannot be reached ({type(error).__name__})"
            ) from None
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            raise WebSearchUnavailable("the provider's answer is no JSON") from None
        return self._fields.read(answer)

    async def _get(self, url: URL, time_limit_seconds: float) -> bytes:
        limit = aiohttp.ClientTimeout(total=time_limit_seconds)
        with request_span(self._tracer, url, self._told_address) as request:
            async with self._session.get(url, allow_redirects=False, timeout=limit) as reply:
                request.note_status(reply.status)
                if reply.status != 200:
                    raise WebSearchUnavailable(self._told(reply.status))
                return await _body(reply)

    def _told(self, status: int) -> str:
        return f"the provider answered {status}"


class SearxngSearch(_Engine):
    """Asks a SearXNG.

    Args:
        url: Its address, as browsers open it.
        tracer: Makes a span for each request.
    """

    def __init__(self, url: str, *, tracer: Tracer | None = None) -> None:
        self._url = url.rstrip("/")
        told = shown(URL(f"{self._url}/search"))
        super().__init__(SEARXNG_FIELDS, {}, told=told, tracer=tracer)

    async def find(
        self,
        query: str,
        *,
        count: int,  # noqa: ARG002 - it cannot be told
        time_limit_seconds: float,
    ) -> tuple[SearchHit, ...]:
        """Returns pages; a SearXNG decides by itself how many."""
        address = f"{self._url}/search?q={quote(query, safe='')}&format=json&safesearch=1"
        return await self._find(address, time_limit_seconds)

    def _told(self, status: int) -> str:
        return _NO_JSON if status == 403 else super()._told(status)


class JsonSearch(_Engine):
    """Asks an engine that settings describe.

    Args:
        template: Address with `{query}`, and `{count}` where the engine takes a number.
        fields: Where in its answers the pages stand.
        header: A header as `Name: value`, for example with a key; empty for none.
        tracer: Makes a span for each request.
    """

    def __init__(
        self,
        template: str,
        fields: JsonFields,
        *,
        header: str = "",
        tracer: Tracer | None = None,
    ) -> None:
        name, _, value = header.partition(":")
        headers = {name.strip(): value.strip()} if header else {}
        # The path may hold the question, or a key.
        told = str(URL(template).origin())
        super().__init__(fields, headers, told=told, tracer=tracer)
        self._template = template

    async def find(
        self, query: str, *, count: int, time_limit_seconds: float
    ) -> tuple[SearchHit, ...]:
        """Returns pages, as many as wanted where the engine can be told."""
        filled = self._template.replace("{count}", str(count))
        address = filled.replace("{query}", quote(query, safe=""))
        return await self._find(address, time_limit_seconds)


def at_pointer(value: Any, pointer: str) -> Any:
    """Returns what a JSON pointer leads to; None where it leads nowhere."""
    for raw in pointer.split("/")[1:]:
        name = raw.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value


def _text(value: Any) -> str:
    return value[:_LONGEST_TEXT] if isinstance(value, str) else ""


async def _body(reply: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in reply.content.iter_any():
        body += piece
        if len(body) > _MOST_BYTES:
            raise WebSearchUnavailable(f"the provider's answer has more than {_MOST_BYTES} bytes")
    return bytes(body)
