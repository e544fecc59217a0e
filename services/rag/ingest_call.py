"""What the workers of one ingestion share: the documents coming in, the events going out."""

import asyncio
from collections.abc import AsyncIterator

from services.common.errors import ServiceError
from services.rag.core.intake import DocumentDone, DocumentProgress, IncomingDocument

__all__ = ["WAITING_EVENT_COUNT", "IngestCall", "Outbox"]

WAITING_EVENT_COUNT = 64


class Outbox:
    """Events on their way to whoever reads them, at most `WAITING_EVENT_COUNT`.

    A result waits for room. Progress is left out where there is none: work holds what other calls
    wait for, so it must not wait for a caller that does not read.
    """

    def __init__(self) -> None:
        self._events: asyncio.Queue[DocumentDone | DocumentProgress | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(WAITING_EVENT_COUNT)

    async def put(self, event: DocumentDone | DocumentProgress) -> None:
        """Passes an event on."""
        if isinstance(event, DocumentProgress) and self._room.locked():
            return
        await self._room.acquire()
        self._events.put_nowait(event)

    def end(self) -> None:
        """Says that no event will follow; never waits."""
        self._events.put_nowait(None)

    async def get(self) -> DocumentDone | DocumentProgress | None:
        """Returns the next event; None after the last."""
        event = await self._events.get()
        if event is not None:
            self._room.release()
        return event


class IngestCall:
    """One call that takes in documents.

    Args:
        documents: The documents, in the order they were sent.

    Attributes:
        outbox: Takes what happens.
        turn: Held by the worker that takes the next document.
        fault: What ended the documents early.
    """

    def __init__(self, documents: AsyncIterator[IncomingDocument]) -> None:
        self.outbox = Outbox()
        self.turn = asyncio.Lock()
        self.fault: ServiceError | None = None
        self._documents = documents
        self._under_way: dict[str, asyncio.Event] = {}

    async def receive(self) -> IncomingDocument | None:
        """Returns the next document, once no other of its id is under way; None at the end.

        To be called with the turn.
        """
        if self.fault is not None:
            return None
        try:
            document = await anext(self._documents, None)
        except ServiceError as error:
            self.fault = error
            return None
        if document is not None and document.document_id in self._under_way:
            await self._under_way[document.document_id].wait()
        return document

    def begin(self, document_id: str) -> None:
        """Notes that a document is worked on, before the turn ends."""
        self._under_way[document_id] = asyncio.Event()

    def end(self, document_id: str) -> None:
        """Notes that a document's result was passed on."""
        self._under_way.pop(document_id).set()
