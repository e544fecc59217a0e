"""Streams files to the service and keeps count of what becomes of them."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import grpc

from pannier.commands.call_status import events_of
from pannier.commands.connection import connect
from pannier.commands.sources import SourceFile, read_parts
from pannier.rag.v1 import corpus_service_pb2, corpus_service_pb2_grpc

__all__ = ["FILE_UNREADABLE", "Sending", "Tally", "ingest_files"]

FILE_UNREADABLE = "FILE_UNREADABLE"

# Together 2 MiB: enough to keep the service busy, little enough to hold in memory.
_READ_AHEAD_PARTS = 8

_Messages = asyncio.Queue[corpus_service_pb2.IngestDocumentsRequest | None]


@dataclass(slots=True)
class Tally:
    """How far an ingestion is.

    Attributes:
        document_count: Documents to take in.
        chunk_counts: Chunks by document, as far as known.
        embedded_counts: Chunks that have their vector, by document.
        results: What became of each document, in the order they finished.
        completed: The service's own summary; None before the end, or where a job goes on.
        accepted: The job that takes the documents in; None where there is none.
    """

    document_count: int
    chunk_counts: dict[str, int] = field(default_factory=dict)
    embedded_counts: dict[str, int] = field(default_factory=dict)
    results: list[corpus_service_pb2.DocumentResult] = field(default_factory=list)
    completed: corpus_service_pb2.IngestCompleted | None = None
    accepted: corpus_service_pb2.IngestAccepted | None = None

    def add(self, event: corpus_service_pb2.IngestDocumentsResponse) -> None:
        """Takes one event into account."""
        kind = event.WhichOneof("event")
        if kind == "progress":
            progress = event.progress
            self.chunk_counts[progress.document_id] = progress.chunk_count
            self.embedded_counts[progress.document_id] = progress.embedded_chunk_count
        elif kind == "result":
            self.finish(event.result)
        elif kind == "completed":
            self.completed = event.completed
        elif kind == "accepted":
            self.accepted = event.accepted

    def finish(self, result: corpus_service_pb2.DocumentResult) -> None:
        """Takes the end of one document into account."""
        self.results.append(result)
        # A failed document will embed no more: what it has is all there is to wait for.
        embedded = self.embedded_counts.get(result.document_id, 0)
        count = embedded if result.HasField("failure") else result.chunk_count
        self.chunk_counts[result.document_id] = count
        self.embedded_counts[result.document_id] = count

    @property
    def chunk_count(self) -> int:
        """Chunks known so far."""
        return sum(self.chunk_counts.values())

    @property
    def embedded_count(self) -> int:
        """Chunks that have their vector."""
        return sum(self.embedded_counts.values())

    @property
    def pending_count(self) -> int:
        """Chunks whose vectors have still to be made."""
        return sum(each.pending_vector_count for each in self.results)

    @property
    def failures(self) -> list[corpus_service_pb2.DocumentResult]:
        """Documents that were not stored."""
        return [each for each in self.results if each.HasField("failure")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """How files are taken in.

    Attributes:
        background: Whether a job takes them in after the call.
        chunking: How they are cut.
        labels: What every document's header has beside its id and source.
    """

    background: bool = False
    chunking: corpus_service_pb2.ChunkingOptions = field(
        default_factory=corpus_service_pb2.ChunkingOptions
    )
    labels: corpus_service_pb2.DocumentHeader = field(
        default_factory=corpus_service_pb2.DocumentHeader
    )


async def ingest_files(
    files: Sequence[SourceFile],
    tally: Tally,
    *,
    collection: str,
    tenant: str,
    address: str,
    timeout_seconds: float,
    progressed: Callable[[], None],
    sending: Sending | None = None,
) -> None:
    """Takes files into a collection; a file that cannot be opened fails alone.

    Args:
        files: The files.
        tally: Kept up to date.
        collection: Where to put them.
        tenant: Owner of the collection.
        address: Where rag is; empty to find it.
        timeout_seconds: How long all of it may take.
        progressed: Called after every event.
        sending: How they are taken in; None for the service's defaults.

    Raises:
        RemoteError: The call failed.
        Unreachable: rag did not answer.
        OSError: A file broke off while it was read.
    """
    messages: _Messages = asyncio.Queue(_READ_AHEAD_PARTS)
    chosen = sending or Sending()
    async with connect("rag", address=address, tenant=tenant) as connection:
        stub: Any = corpus_service_pb2_grpc.CorpusServiceStub(connection.channel)
        call = stub.IngestDocuments(timeout=timeout_seconds)
        try:
            async with asyncio.TaskGroup() as tasks:
                senders = [
                    tasks.create_task(_read(files, collection, chosen, messages, tally)),
                    tasks.create_task(_write(call, messages)),
                ]
                async for event in events_of(call):
                    tally.add(event)
                    progressed()
                # The service may end the call before everything was sent.
                for sender in senders:
                    sender.cancel()
        except ExceptionGroup as group:
            raise group.exceptions[0] from None


async def _read(
    files: Sequence[SourceFile],
    collection: str,
    sending: Sending,
    messages: _Messages,
    tally: Tally,
) -> None:
    message = corpus_service_pb2.IngestDocumentsRequest
    options = corpus_service_pb2.IngestOptions(
        collection=collection, chunking=sending.chunking, background=sending.background
    )
    await messages.put(message(options=options))
    for source in files:
        parts = read_parts(source.path)
        try:
            part = await asyncio.to_thread(next, parts, None)
        except OSError as error:
            tally.finish(_unreadable(source, error))
            continue
        header = corpus_service_pb2.DocumentHeader()
        header.CopyFrom(sending.labels)
        header.document_id = source.document_id
        header.source_uri = source.path.absolute().as_uri()
        await messages.put(message(header=header))
        try:
            while part is not None:
                data, last = part
                content = corpus_service_pb2.DocumentContent(data=data, last=last)
                await messages.put(message(content=content))
                part = await asyncio.to_thread(next, parts, None)
        finally:
            # A thread that is reading right now closes the file with the generator's end.
            with suppress(ValueError):
                parts.close()
    await messages.put(None)


async def _write(call: Any, messages: _Messages) -> None:
    try:
        while (message := await messages.get()) is not None:
            await call.write(message)
        await call.done_writing()
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        # The call has ended; whoever reads its events learns why.
        return


def _unreadable(source: SourceFile, error: OSError) -> corpus_service_pb2.DocumentResult:
    return corpus_service_pb2.DocumentResult(
        document_id=source.document_id,
        outcome=corpus_service_pb2.INGEST_OUTCOME_FAILED,
        failure=corpus_service_pb2.DocumentFailure(
            reason=FILE_UNREADABLE, message=f"{source.path} cannot be read: {error.strerror}"
        ),
    )
