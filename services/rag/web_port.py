"""What the search of the web needs: a provider that knows addresses, and a way to fetch them."""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

__all__ = [
    "FetchedPage",
    "PageFetcher",
    "PageOutcome",
    "PageRefused",
    "SearchHit",
    "SearchProvider",
]


class PageOutcome(Enum):
    """What came of a page; the values label metrics."""

    READ = "read"
    CACHED = "cached"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    STATUS = "status"
    UNSUPPORTED = "unsupported"
    TOO_LARGE = "too_large"
    TIMED_OUT = "timed_out"
    UNREADABLE = "unreadable"


class PageRefused(Exception):
    """A page was not fetched; never reaches a caller.

    Attributes:
        outcome: What kind of reason it was.
    """

    def __init__(self, outcome: PageOutcome, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A page that a provider has found."""

    url: str
    title: str = ""
    snippet: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedPage:
    """A page as it was sent.

    Attributes:
        url: Where it was sent from, after redirects.
        content: Its bytes.
        media_type: What they are, lower case and without parameters.
        charset: How text is encoded, as the server says; empty where it does not.
    """

    url: str
    content: bytes
    media_type: str
    charset: str = ""


class SearchProvider(Protocol):
    """Finds pages for a question."""

    async def find(
        self, query: str, *, count: int, time_limit_seconds: float
    ) -> tuple[SearchHit, ...]:
        """Returns pages, best first.

        Args:
            query: What to look for.
            count: How many pages are wanted; more may come.
            time_limit_seconds: Longest time to take.

        Raises:
            WebSearchUnavailable: It cannot be asked, or its answer makes no sense.
        """
        ...


class PageFetcher(Protocol):
    """Fetches pages of the web, and nothing else."""

    async def fetch(self, url: str) -> FetchedPage:
        """Returns a page; raises `PageRefused` where that must not or cannot be done.

        How long it takes is up to the caller, who cancels it.
        """
        ...
