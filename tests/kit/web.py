"""A search engine that speaks as SearXNG does, and pages of all kinds, on one local server."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

__all__ = ["FakeWeb", "serving_web"]


class FakeWeb:
    """A server of searches and pages.

    Attributes:
        pages: Bodies and content types by path.
        redirects: Where paths lead.
        results: Addresses that a search finds; a path stands for a page of this server.
        status: What searches are answered with.
        answer: What searches are answered with instead of results.
        searches: Queries received, with their headers.
        fetched: Paths of pages asked for, with their headers.
        released: Slow bodies wait for it.
        left: Set when a reader of an endless or slow body has gone.
    """

    def __init__(self) -> None:
        self.pages: dict[str, tuple[bytes, str]] = {}
        self.redirects: dict[str, str] = {}
        self.results: list[str] = []
        self.status = 200
        self.answer: bytes | None = None
        self.searches: list[tuple[dict[str, str], dict[str, str]]] = []
        self.fetched: list[tuple[str, dict[str, str]]] = []
        self.released = asyncio.Event()
        self.left = asyncio.Event()
        self.port = 0

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self.port}"

    def add(self, path: str, body: str, content_type: str = "text/html; charset=utf-8") -> None:
        """Adds a page, and has searches find it."""
        self.pages[path] = body.encode(), content_type
        self.results.append(path)

    async def search(self, request: web.Request) -> web.Response:
        """Answers a search."""
        self.searches.append((dict(request.query), dict(request.headers)))
        if self.status != 200:
            return web.Response(status=self.status)
        if self.answer is not None:
            return web.Response(body=self.answer, content_type="application/json")
        results = [
            {
                "url": f"{self.url}{each}" if each.startswith("/") else each,
                "title": f"Title of {each}",
                "content": "A few words.",
                "engine": "fake",
            }
            for each in self.results
        ]
        text = json.dumps({"query": request.query.get("q", ""), "results": results})
        return web.Response(text=text, content_type="application/json")

    async def page(self, request: web.Request) -> web.StreamResponse:
        """Sends a page."""
        self.fetched.append((request.path, dict(request.headers)))
        if request.path in self.redirects:
            raise web.HTTPFound(self.redirects[request.path])
        if request.path not in self.pages:
            raise web.HTTPNotFound
        body, content_type = self.pages[request.path]
        headers = {"Content-Type": content_type, "Set-Cookie": "seen=1"}
        if request.path.startswith("/packed"):
            headers["Content-Encoding"] = "gzip"
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        try:
            if request.path.startswith("/slow"):
                await response.write(body[:10])
                await self.released.wait()
            while request.path.startswith("/endless"):
                await response.write(body)
            await response.write(body)
            await response.write_eof()
        except (ConnectionError, asyncio.CancelledError):
            self.left.set()
            raise
        return response


@asynccontextmanager
async def serving_web() -> AsyncIterator[FakeWeb]:
    """Serves searches and pages on a free port."""
    fake = FakeWeb()
    application = web.Application()
    application.router.add_get("/search", fake.search)
    application.router.add_get("/{path:.*}", fake.page)
    runner = web.AppRunner(
        application, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
    )
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.port = runner.addresses[0][1]
    try:
        yield fake
    finally:
        fake.released.set()
        await runner.cleanup()
