"""A search of the web does without what fails, and says so where nothing is left."""

import asyncio

import pytest
from opentelemetry.trace import NoOpTracer

from services.common.clock import SystemClock
from services.common.errors import PeerUnavailable
from services.common.identity import Identity, current_identity
from services.common.metrics import Metrics
from services.rag.core.web_errors import WebSearchUnavailable
from services.rag.metrics import CATALOGUE
from services.rag.recorder import Recorder
from services.rag.web import PagedWeb, WebLimits
from services.rag.web_port import FetchedPage, PageOutcome, PageRefused, SearchHit

TEXT = "The moon causes the tides of the sea."
QUESTION = "What causes tides?"


class Scripted:
    """A provider, a fetcher, a worker and a catalogue without models."""

    def __init__(self, pages, **limits):
        self.pages = pages
        self.found = []
        self.fetched = []
        self.metrics = Metrics(CATALOGUE, version="test")
        chosen = {"page_count": 3, "retention_seconds": 3600.0, "retention_bytes": 1_000_000}
        self.web = PagedWeb(
            provider=self,
            fetcher=self,
            worker=self,
            embeddings=None,
            catalogue=self,
            clock=SystemClock(),
            metrics=self.metrics,
            limits=WebLimits(**{**chosen, **limits}),
        )

    async def find(self, query, *, count, time_limit_seconds):
        self.found.append(query)
        return tuple(SearchHit(f"https://{name}.example/") for name in self.pages)

    async def fetch(self, url):
        name = url.removeprefix("https://").partition(".")[0]
        self.fetched.append(name)
        page = self.pages[name]
        if isinstance(page, BaseException):
            raise page
        if page is None:
            await asyncio.Event().wait()
        return FetchedPage(url=url, content=page.encode(), media_type="text/plain")

    async def run(self, function, *arguments, heavy):
        return function(*arguments)

    async def embedding_model(self, name=""):
        raise PeerUnavailable("balancer", "away")

    async def search(self, question=QUESTION):
        recorder = Recorder(clock=SystemClock(), tracer=NoOpTracer())
        return await self.web.search(question, recorder, limit=5, time_limit_seconds=2.0)

    def count(self, name, label):
        return self.metrics.registry.get_sample_value(name, {"outcome": label})


@pytest.mark.parametrize(
    ("page", "outcome"),
    [
        (PageRefused(PageOutcome.REFUSED, "no"), "refused"),
        (RuntimeError("a bug of a parser"), "unreadable"),
        ("", "unreadable"),
        ("\0\1", "unreadable"),
    ],
)
async def test_a_page_that_fails_takes_no_other_with_it(page, outcome):
    scripted = Scripted({"good": TEXT, "bad": page})
    (found,) = await scripted.search()
    assert found.passage.text == TEXT
    assert scripted.count("rag_web_pages_total", outcome) == 1
    assert scripted.count("rag_web_pages_total", "read") == 1


async def test_where_no_page_can_be_read_it_is_said_why():
    scripted = Scripted(dict.fromkeys("ab", PageRefused(PageOutcome.STATUS, "404")))
    with pytest.raises(WebSearchUnavailable, match="2 status"):
        await scripted.search()
    assert scripted.count("rag_web_searches_total", "error") == 1


async def test_that_nothing_was_found_is_no_failure():
    scripted = Scripted({})
    assert await scripted.search() == ()
    assert scripted.count("rag_web_searches_total", "empty") == 1


async def test_no_more_pages_are_read_than_are_wanted():
    scripted = Scripted(dict.fromkeys("abcdef", TEXT), page_count=2)
    await scripted.search()
    assert scripted.fetched == ["a", "b"]


async def test_what_is_known_is_not_asked_again_and_hits_are_those_of_a_tenant():
    scripted = Scripted({"a": TEXT})
    await scripted.search()
    await scripted.search("what  causes TIDES?")
    assert len(scripted.found) == len(scripted.fetched) == 1
    token = current_identity.set(Identity(tenant_id="other"))
    try:
        await scripted.search()
    finally:
        current_identity.reset(token)
    assert len(scripted.found) == 2
    assert scripted.fetched == ["a"]
    assert scripted.count("rag_web_pages_total", "cached") == 2
