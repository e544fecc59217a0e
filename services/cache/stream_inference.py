"""Sending an answer as it is there: a stored one at once, another one as it comes."""

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from dataclasses import dataclass

from services.cache.core.failures import Failure, FailureKind
from services.cache.core.fills import Cursor, LiveText, Part, Piece, split_text
from services.cache.core.flights import Found, Granted, Interrupted, Refused
from services.cache.core.inference import Finding, Kind, Query
from services.cache.core.leases import Lease
from services.cache.core.model import Hit
from services.cache.leases import Leases
from services.cache.levels import Levels
from services.cache.look_up_inference import InferenceLookups, Visit

__all__ = ["Broken", "Event", "Followed", "InferenceStreams", "ReadPieces"]

_TOO_LATE = Failure(FailureKind.TRANSIENT, "the caller's time is up")
_INVALIDATED = Failure(
    FailureKind.TRANSIENT, "what the answer depends on has been invalidated meanwhile"
)
_ANOTHER_TEXT = Failure(FailureKind.TRANSIENT, "another answer has been stored meanwhile")

ReadPieces = Callable[[bytes], Iterable[Piece]]
"""Reads the pieces of a stored answer out of its payload, in the order of their generation."""


@dataclass(frozen=True, slots=True)
class Followed:
    """The answer is complete.

    Attributes:
        hit: The answer.
        coalesced: Whether it was computed while the caller followed it.
    """

    hit: Hit
    coalesced: bool


@dataclass(frozen=True, slots=True)
class Broken:
    """The one who computed the answer has failed.

    Attributes:
        failure: Why.
        lease: The right to compute it, where the caller is the one to.
    """

    failure: Failure
    lease: Lease | None = None


Event = Finding | Piece | Followed | Broken


class InferenceStreams:
    """Sends answers.

    Args:
        levels: Where they are kept.
        lookups: Looks them up.
        leases: Leases of this replica.
        read_pieces: Reads stored ones.
    """

    def __init__(
        self,
        levels: Levels,
        lookups: InferenceLookups,
        leases: Leases,
        *,
        read_pieces: ReadPieces,
    ) -> None:
        self._levels = levels
        self._lookups = lookups
        self._leases = leases
        self._read_pieces = read_pieces

    async def stream(self, query: Query) -> AsyncGenerator[Event, None]:
        """Sends an answer.

        Yields:
            What was found, first; then, where there is an answer, pieces and how it ended. A lease
            is given back if the caller does not stay to the end.
        """
        visit: Visit | None = None
        finding: Finding | None = None
        is_served = False
        cursor = Cursor()
        try:
            entered = await self._lookups.enter(query, streaming=True)
            if isinstance(entered, Finding):
                finding = entered
            else:
                visit = entered
                while visit.waiter.outcome is None:
                    await visit.waiter.news()
                    for event in self._pass_on(visit, cursor):
                        yield event
                finding = await self._lookups.conclude(visit)
            if visit is not None and visit.waiter.has_begun:
                events = self._end(visit, cursor)
            else:
                events = self._tell(finding)
            for event in events:
                yield event
            is_served = True
        finally:
            if visit is not None:
                self._lookups.leave(visit, is_served=finding is not None)
            if finding is not None and finding.lease is not None and not is_served:
                self._leases.release_soon(query.key, finding.lease.token)

    def _pass_on(self, visit: Visit, cursor: Cursor) -> Iterator[Event]:
        """Passes on what has come of an answer that is being computed, for as long as it counts."""
        waiter = visit.waiter
        if waiter.text is None or waiter.outcome is not None:
            return
        pieces = waiter.text.read(cursor)
        # Each time: the caller may have been slow to take the piece before.
        while self._counts(visit, waiter.text) and (piece := next(pieces, None)) is not None:
            if not waiter.has_begun:
                waiter.begin_text()
                yield Finding(kind=Kind.COALESCED, read_ms=visit.read_ms, waited=True)
            yield piece
        if waiter.has_begun and not self._counts(visit, waiter.text):
            waiter.settle(Interrupted(_INVALIDATED))

    def _counts(self, visit: Visit, text: LiveText) -> bool:
        """Returns whether nothing that a text depends on has been invalidated."""
        return self._levels.epochs.is_valid(visit.query.scope, text.created_ms, text.tags)

    def _tell(self, finding: Finding) -> Iterator[Event]:
        """Tells of what was found at once."""
        yield finding
        if finding.hit is not None:
            yield from self._read_pieces(finding.hit.payload)
            yield Followed(finding.hit, coalesced=finding.kind is Kind.COALESCED)

    def _end(self, visit: Visit, cursor: Cursor) -> Iterator[Event]:
        """Brings a text that was begun to its end."""
        waiter = visit.waiter
        match waiter.outcome:
            case Found() if waiter.text is not None and not self._counts(visit, waiter.text):
                yield Broken(_INVALIDATED)
            case Found(hit):
                rest = self._rest(waiter.text, cursor, hit)
                if rest is None:
                    yield Broken(_ANOTHER_TEXT)
                    return
                yield from rest
                yield Followed(hit, coalesced=True)
            case Granted(lease):
                failure = waiter.text.failure if waiter.text is not None else Failure()
                yield Broken(failure, lease)
            case Interrupted(failure):
                yield Broken(failure)
            case Refused(known):
                yield Broken(known.failure)
            case _:
                yield Broken(_TOO_LATE)

    def _rest(self, text: LiveText | None, cursor: Cursor, hit: Hit) -> list[Piece] | None:
        """Returns what is missing to the whole answer; None where it is another one."""
        rest = []
        pieces = list(self._read_pieces(hit.payload))
        for part in (Part.THINKING, Part.TEXT):
            whole = "".join(piece.text for piece in pieces if piece.part is part)
            sent = text.read_before(cursor, part) if text is not None else ""
            if not whole.startswith(sent):
                return None
            rest += [Piece(part, each) for each in split_text(whole[len(sent) :])]
        return rest
