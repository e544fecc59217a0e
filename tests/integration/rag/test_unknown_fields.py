"""What a newer client says in fields that are not known here must not widen what it concerns."""

import pytest

from pannier.rag.v1 import conversation_pb2, filter_pb2, usage_service_pb2
from pannier.rag.v1 import corpus_service_pb2 as corpus
from pannier.rag.v1 import rag_service_pb2 as pb
from pannier.rag.v1.usage_service_pb2_grpc import UsageAdminServiceStub
from services.common.errors import StatusCode
from tests.integration.rag.conftest import as_tenant
from tests.kit.questions import DOCUMENTS, QUESTION
from tests.kit.rpc import error_of

ANN = [*as_tenant("acme"), ("x-pannier-user-id", "ann")]
# Field 99, holding 1.
UNKNOWN = b"\x98\x06\x01"
MACHINES = filter_pb2.DocumentFilter(
    metadata=[filter_pb2.MetadataCondition(key="kind", equals="machine")]
)


def with_unknown(message):
    """Returns a message as a client sends it who knows one field more."""
    return type(message).FromString(message.SerializeToString() + UNKNOWN)


def nested():
    chosen = filter_pb2.DocumentFilter(document_ids=["fox.md"])
    chosen.metadata.append(with_unknown(MACHINES.metadata[0]))
    return chosen


@pytest.mark.parametrize(
    ("chosen", "path"),
    [
        (with_unknown(filter_pb2.DocumentFilter()), "filter.99"),
        (with_unknown(MACHINES), "filter.99"),
        (nested(), "filter.metadata[0].99"),
    ],
    ids=["alone", "beside", "nested"],
)
async def test_a_filter_that_is_not_understood_finds_and_deletes_nothing(filled, chosen, path):
    options = pb.RetrievalOptions(filter=chosen)
    question = pb.QueryRequest(collection="docs", query=QUESTION, retrieval=options)
    calls = {
        f"options.{path}": filled.rag.Retrieve(
            pb.RetrieveRequest(collection="docs", query=QUESTION, options=options), metadata=ANN
        ),
        f"retrieval.{path}": filled.rag.Query(question, metadata=ANN),
        path: filled.corpus.ListDocuments(
            corpus.ListDocumentsRequest(collection="docs", filter=chosen), metadata=ANN
        ),
    }
    for field, call in calls.items():
        await is_refused(call, field)
    stream = filled.rag.StreamQuery(pb.StreamQueryRequest(query=question), metadata=ANN)
    await is_refused(anext(aiter(stream)), f"retrieval.{path}")
    deletion = corpus.DeleteDocumentsRequest(collection="docs", filter=chosen, confirm="docs")
    await is_refused(filled.corpus.DeleteDocuments(deletion, metadata=ANN), path)
    assert await names(filled) == sorted(DOCUMENTS)


async def test_what_changes_something_is_refused_as_a_whole(filled):
    docs, fox = {"collection": "docs"}, {"collection": "docs", "document_id": "fox.md"}
    admin = UsageAdminServiceStub(filled.channel)
    budget = with_unknown(usage_service_pb2.Budget(daily_token_count=1))
    calls = [
        (filled.corpus.DeleteDocument, corpus.DeleteDocumentRequest(**fox)),
        (
            filled.corpus.DeleteDocuments,
            corpus.DeleteDocumentsRequest(**docs, document_ids=["fox.md"], confirm="docs"),
        ),
        (filled.corpus.DeleteCollection, corpus.DeleteCollectionRequest(**docs, confirm="docs")),
        (filled.corpus.UpdateDocument, corpus.UpdateDocumentRequest(**fox)),
        (filled.corpus.CreateCollection, corpus.CreateCollectionRequest(collection="new")),
        (filled.corpus.CancelIngestJob, corpus.CancelIngestJobRequest(job_id="j")),
        (
            filled.rag.DeleteConversation,
            conversation_pb2.DeleteConversationRequest(conversation_id="c"),
        ),
    ]
    for method, request in calls:
        error = await error_of(method(with_unknown(request), metadata=ANN))
        assert (error.error_reason, error.violations[0].field) == ("INVALID_FIELD", "99")
    request = usage_service_pb2.SetBudgetRequest(budget=budget)
    await is_refused(admin.SetBudget(request, metadata=ANN), "budget.99")
    assert await names(filled) == sorted(DOCUMENTS)


async def test_what_is_found_wrong_with_a_filter_is_said_once(filled):
    deletion = corpus.DeleteDocumentsRequest(
        collection="docs", filter=with_unknown(MACHINES), confirm="docs"
    )
    error = await error_of(filled.corpus.DeleteDocuments(with_unknown(deletion), metadata=ANN))
    assert [each.field for each in error.violations] == ["99", "filter.99"]


async def test_documents_that_are_not_understood_are_not_taken_in(filled):
    message = corpus.IngestDocumentsRequest
    options = message(options=corpus.IngestOptions(collection="docs"))
    odd = message(header=with_unknown(corpus.DocumentHeader(document_id="odd.md")))
    content = message(content=corpus.DocumentContent(data=b"text", last=True))

    async def sent(*requests):
        for each in requests:
            yield each

    refused = filled.corpus.IngestDocuments(sent(with_unknown(options)), metadata=ANN)
    await is_refused(anext(aiter(refused)), "99")
    call = filled.corpus.IngestDocuments(sent(options, odd, content), metadata=ANN)
    [failure] = [
        each.result.failure for each in [event async for event in call] if each.HasField("result")
    ]
    assert (failure.reason, dict(failure.metadata)) == ("INVALID_FIELD", {"field": "header.99"})
    assert await names(filled) == sorted(DOCUMENTS)


async def is_refused(call, field):
    error = await error_of(call)
    assert (error.status_code, error.error_reason) == (
        StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
    )
    # To a filter of which nothing is known, more may be found wrong.
    assert error.violations[0].field == field


async def names(rag):
    listed = await rag.corpus.ListDocuments(
        corpus.ListDocumentsRequest(collection="docs"), metadata=ANN
    )
    return [each.document_id for each in listed.documents]
