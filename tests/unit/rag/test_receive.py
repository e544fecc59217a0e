import tracemalloc
from itertools import chain, repeat

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from pannier.rag.v1 import corpus_service_pb2 as pb
from services.common.errors import InvalidRequest
from services.rag.receive import receive_documents, receive_options

# Field 99, holding 1.
UNKNOWN = b"\x98\x06\x01"


def header(document_id, **fields):
    return pb.IngestDocumentsRequest(header=pb.DocumentHeader(document_id=document_id, **fields))


def part(data, *, last=False):
    return pb.IngestDocumentsRequest(content=pb.DocumentContent(data=data, last=last))


def with_unknown(message: Message) -> Message:
    """Returns a message as a client sends it who knows one field more."""
    return type(message).FromString(message.SerializeToString() + UNKNOWN)


async def received(requests, *, maximum_document_bytes=1000):
    async def stream():
        for request in requests:
            yield request

    documents = receive_documents(stream(), maximum_document_bytes=maximum_document_bytes)
    return [document async for document in documents]


@given(parts=st.lists(st.binary(max_size=40), min_size=1, max_size=20))
async def test_a_content_is_the_same_in_whatever_parts_it_comes(parts):
    requests = [header("a"), *(part(data) for data in parts[:-1]), part(parts[-1], last=True)]
    [document] = await received(requests)
    assert document.content == b"".join(parts)


async def test_one_document_has_nothing_of_the_one_before():
    documents = await received(
        [header("a"), part(b"first", last=True), header("b"), part(b"", last=True)]
    )
    assert [each.content for each in documents] == [b"first", b""]


async def test_a_content_of_the_largest_size_is_accepted_and_one_byte_more_is_not():
    documents = await received(
        [
            *(header("a"), part(b"x" * 600), part(b"x" * 400, last=True)),
            *(header("b"), part(b"x" * 600), part(b"x" * 401), part(b"y", last=True)),
        ]
    )
    assert [len(each.content) for each in documents] == [1000, 0]
    assert documents[0].fault is None
    assert documents[1].fault.error_reason == "DOCUMENT_TOO_LARGE"


@pytest.mark.parametrize("data", [b"", b"x"])
async def test_a_content_takes_its_bytes_however_many_parts_it_comes_in(data):
    count = 50_000
    requests = chain([header("a")], repeat(part(data), count), [part(b"", last=True)])
    tracemalloc.start()
    try:
        [document] = await received(requests, maximum_document_bytes=count)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(document.content) == count * len(data)
    assert peak_bytes < 3 * count


async def test_an_overlong_id_is_cut_and_fails_its_document_alone():
    documents = await received(
        [
            *(header("x" * 4_000_000), part(b"text", last=True)),
            *(header("good"), part(b"text", last=True)),
        ]
    )
    assert [each.document_id for each in documents] == ["x" * 512, "good"]
    assert documents[0].fault.violations[0].field == "header.document_id"
    assert documents[0].content == b""
    assert documents[1].fault is None


async def test_metadata_of_too_many_entries_is_not_looked_into():
    metadata = {f"{n}\0": "\0" for n in range(1000)}
    [document] = await received([header("a", metadata=metadata), part(b"", last=True)])
    assert [each.field for each in document.fault.violations] == ["header.metadata"]
    assert "64" in document.fault.message


async def test_a_file_of_200_megabytes_is_refused_without_being_kept():
    part_bytes = bytes(1024 * 1024)
    requests = chain([header("a")], repeat(part(part_bytes), 200), [part(b"", last=True)])
    tracemalloc.start()
    try:
        [document] = await received(requests, maximum_document_bytes=4 * 1024 * 1024)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert document.content == b""
    assert document.fault.metadata["limit_bytes"] == str(4 * 1024 * 1024)
    assert peak_bytes < 12 * 1024 * 1024


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (with_unknown(pb.IngestDocumentsRequest(options=pb.IngestOptions(collection="c"))), "99"),
        (
            pb.IngestDocumentsRequest(options=with_unknown(pb.IngestOptions(collection="c"))),
            "options.99",
        ),
        (
            pb.IngestDocumentsRequest(
                options=pb.IngestOptions(
                    collection="c", chunking=with_unknown(pb.ChunkingOptions())
                )
            ),
            "options.chunking.99",
        ),
        (with_unknown(pb.IngestDocumentsRequest()), "99"),
    ],
)
async def test_options_that_are_not_understood_are_refused(options, field):
    async def stream():
        yield options

    with pytest.raises(InvalidRequest) as caught:
        await receive_options(stream())
    assert [each.field for each in caught.value.violations] == [field]


@pytest.mark.parametrize(
    ("requests", "field"),
    [
        ([with_unknown(header("odd")), part(b"text", last=True)], "99"),
        (
            [
                pb.IngestDocumentsRequest(
                    header=with_unknown(pb.DocumentHeader(document_id="odd"))
                ),
                part(b"text", last=True),
            ],
            "header.99",
        ),
        ([header("odd"), with_unknown(part(b"text")), part(b"text", last=True)], "99"),
        (
            [
                header("odd"),
                part(b"text"),
                pb.IngestDocumentsRequest(
                    content=with_unknown(pb.DocumentContent(data=b"text", last=True))
                ),
            ],
            "content.99",
        ),
    ],
)
async def test_a_document_that_is_not_understood_fails_alone(requests, field):
    odd, good = await received([*requests, header("good"), part(b"text", last=True)])
    assert (odd.document_id, odd.content, odd.fault.error_reason) == ("odd", b"", "INVALID_FIELD")
    assert [each.field for each in odd.fault.violations] == [field]
    assert (good.document_id, good.content, good.fault) == ("good", b"text", None)


async def test_a_message_of_an_unknown_kind_is_named():
    with pytest.raises(InvalidRequest) as caught:
        await received([header("a"), with_unknown(pb.IngestDocumentsRequest())])
    assert [each.field for each in caught.value.violations] == ["99"]
