"""Puts the messages of an ingestion together to documents."""

import io
from collections.abc import AsyncIterator
from dataclasses import replace

from pannier.rag.v1 import corpus_service_pb2 as pb
from services.common.errors import (
    FieldViolation,
    InvalidRequest,
    ServiceError,
    StreamProtocolViolation,
)
from services.common.unknown_fields import unknown_field_violations
from services.common.validation import Violations
from services.rag.core.document_errors import DocumentTooLarge
from services.rag.core.intake import IncomingDocument, IngestOptions
from services.rag.ingest_convert import (
    MAXIMUM_DOCUMENT_ID_LENGTH,
    MAXIMUM_PART_BYTES,
    header_of,
    options_of,
)

__all__ = ["receive_documents", "receive_options"]

Requests = AsyncIterator[pb.IngestDocumentsRequest]


async def receive_options(requests: Requests) -> IngestOptions:
    """Reads the first message.

    Raises:
        StreamProtocolViolation: Something else came first.
        InvalidRequest: Options break their rules, or hold fields that are not known.
    """
    request = await anext(requests, None)
    if request is None:
        raise StreamProtocolViolation(expected="options", actual="the end")
    fault = _not_understood(request)
    if fault is not None:
        raise fault
    kind = request.WhichOneof("message") or "nothing"
    if kind != "options":
        raise StreamProtocolViolation(expected="options", actual=kind)
    return options_of(request.options)


async def receive_documents(
    requests: Requests, *, maximum_document_bytes: int
) -> AsyncIterator[IncomingDocument]:
    """Reads documents one after the other.

    A document with a bad header, fields that are not known or too many bytes is passed on with its
    fault, so that it fails alone.

    Args:
        requests: The messages after the options.
        maximum_document_bytes: Largest document accepted.

    Raises:
        StreamProtocolViolation: Messages came in an order that is not allowed.
        InvalidRequest: A part of a content is too large, or a message is of no known kind.
    """
    arrival: _Arrival | None = None
    async for request in requests:
        kind = request.WhichOneof("message") or "nothing"
        expected = "header" if arrival is None else "content"
        fault = _not_understood(request)
        if kind != expected:
            raise fault or StreamProtocolViolation(expected=expected, actual=kind)
        if arrival is None:
            arrival = _Arrival(_begin(request.header), maximum_document_bytes)
        else:
            arrival.add(request.content.data)
        if fault is not None:
            arrival.refuse(fault)
        if kind == "content" and request.content.last:
            yield arrival.take()
            arrival = None
    if arrival is not None:
        raise StreamProtocolViolation(expected="content", actual="the end")


class _Arrival:
    """A document whose content is coming in.

    Args:
        document: What its header says.
        maximum_bytes: Largest content accepted.
    """

    def __init__(self, document: IncomingDocument, maximum_bytes: int) -> None:
        self._document = document
        self._maximum_bytes = maximum_bytes
        self._content = io.BytesIO()

    def add(self, data: bytes) -> None:
        """Adds a part; once the document has a fault its content is not kept.

        Raises:
            InvalidRequest: The part is too large.
        """
        if len(data) > MAXIMUM_PART_BYTES:
            raise InvalidRequest(
                FieldViolation("content.data", f"Must have at most {MAXIMUM_PART_BYTES} bytes.")
            )
        if self._document.fault is not None:
            return
        if self._content.tell() + len(data) > self._maximum_bytes:
            self.refuse(DocumentTooLarge(self._maximum_bytes))
        else:
            self._content.write(data)

    def refuse(self, fault: ServiceError) -> None:
        """Gives the document a fault, unless it has one."""
        if self._document.fault is None:
            self._document = replace(self._document, fault=fault)
            self._content = io.BytesIO()

    def take(self) -> IncomingDocument:
        """Returns the document with its content, and keeps nothing of it."""
        # Whole already, not copied: a join would hold up the event loop and need twice the bytes.
        content, self._content = self._content, io.BytesIO()
        return replace(self._document, content=content.getvalue())


def _not_understood(request: pb.IngestDocumentsRequest) -> InvalidRequest | None:
    """Returns what is wrong with a message that a newer client has sent, if anything is."""
    found = tuple(unknown_field_violations(request))
    return InvalidRequest(*found) if found else None


def _begin(header: pb.DocumentHeader) -> IncomingDocument:
    violations = Violations()
    document = header_of(header, violations)
    try:
        violations.raise_found()
    except InvalidRequest as error:
        # An id of any length would come back with the result, and break the client's limit.
        document_id = header.document_id[:MAXIMUM_DOCUMENT_ID_LENGTH]
        return IncomingDocument(document_id=document_id, source_uri="", fault=error)
    return document
