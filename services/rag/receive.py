"""Puts the messages of an ingestion together to documents."""

from collections.abc import AsyncIterator
from dataclasses import replace

from pannier.rag.v1 import corpus_service_pb2 as pb
from services.common.errors import FieldViolation, InvalidRequest, ServiceError
from services.rag.core.errors import DocumentTooLarge, StreamProtocolViolation
from services.rag.core.intake import IncomingDocument
from services.rag.corpus_convert import MAXIMUM_PART_BYTES, collection_of, header_of

__all__ = ["receive_documents", "receive_options"]

Requests = AsyncIterator[pb.IngestDocumentsRequest]


async def receive_options(requests: Requests) -> str:
    """Reads the first message.

    Returns:
        The collection that documents are to go to.

    Raises:
        StreamProtocolViolation: Something else came first.
        InvalidRequest: The collection's name has a form that is not allowed.
    """
    request = await anext(requests, None)
    kind = "the end" if request is None else request.WhichOneof("message") or "nothing"
    if request is None or kind != "options":
        raise StreamProtocolViolation(expected="options", actual=kind)
    return collection_of(request.options)


async def receive_documents(
    requests: Requests, *, maximum_document_bytes: int
) -> AsyncIterator[IncomingDocument]:
    """Reads documents one after the other.

    A document with a bad header or too many bytes is passed on with its fault, so that it fails
    alone.

    Args:
        requests: The messages after the options.
        maximum_document_bytes: Largest document accepted.

    Raises:
        StreamProtocolViolation: Messages came in an order that is not allowed.
        InvalidRequest: A part of a content is too large.
    """
    current: IncomingDocument | None = None
    parts: list[bytes] = []
    size = 0
    async for request in requests:
        kind = request.WhichOneof("message") or "nothing"
        expected = "header" if current is None else "content"
        if kind != expected:
            raise StreamProtocolViolation(expected=expected, actual=kind)
        if current is None:
            current, parts, size = _begin(request.header), [], 0
            continue
        data = request.content.data
        if len(data) > MAXIMUM_PART_BYTES:
            raise InvalidRequest(
                FieldViolation("content.data", f"Must have at most {MAXIMUM_PART_BYTES} bytes.")
            )
        size += len(data)
        if size > maximum_document_bytes and current.fault is None:
            current = replace(current, fault=DocumentTooLarge(maximum_document_bytes))
            parts.clear()
        if current.fault is None:
            parts.append(data)
        if request.content.last:
            yield replace(current, content=b"".join(parts))
            current = None
    if current is not None:
        raise StreamProtocolViolation(expected="content", actual="the end")


def _begin(header: pb.DocumentHeader) -> IncomingDocument:
    try:
        return header_of(header)
    except ServiceError as error:
        return IncomingDocument(document_id=header.document_id, source_uri="", fault=error)
