import json

import grpc
import pytest

from pannier.commands.evaluation import (
    VARIANTS,
    delete_scratch,
    evaluate,
    fill_scratch,
    new_scratch_name,
    queries_of,
    variant_of,
)
from pannier.commands.ingestion import Tally
from pannier.commands.judged_sets import open_judged_set
from pannier.rag.v1 import corpus_service_pb2 as corpus
from pannier.rag.v1 import evaluation_service_pb2 as pb
from pannier.rag.v1.evaluation_service_pb2_grpc import EvaluationServiceStub
from services.common.errors import PeerUnavailable

ANIMALS = ("badger", "heron", "otter", "magpie", "weasel", "lynx")


@pytest.fixture
def judged_set(tmp_path):
    documents = [
        {"_id": name, "title": name.title(), "text": f"The {name} eats only what {name}s like."}
        for name in ANIMALS
    ]
    queries = [{"_id": f"q-{name}", "text": f"What does the {name} eat?"} for name in ANIMALS]
    for file, rows in (("corpus", documents), ("queries", queries)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{file}.jsonl").write_text(lines)
    (tmp_path / "qrels").mkdir()
    grades = "".join(f"q-{name}\t{name}\t1\n" for name in ANIMALS)
    (tmp_path / "qrels" / "test.tsv").write_text(grades)
    return open_judged_set(tmp_path)


async def fill(rag, judged_set):
    name, tally = new_scratch_name(), Tally(judged_set.document_count)
    await fill_scratch(
        rag.channel, name, judged_set, tally, timeout_seconds=30, progressed=lambda: None
    )
    assert tally.completed.created_count == len(ANIMALS)
    return name


def request(name, judged_set, *names, **changes):
    variants = [variant_of(each, **VARIANTS[each]) for each in names]
    return pb.EvaluateRequest(
        collection=name, queries=queries_of(judged_set), variants=variants, **changes
    )


async def test_a_judged_set_is_taken_in_evaluated_and_deleted(rag, judged_set):
    name = await fill(rag, judged_set)
    told = []
    report = await evaluate(
        rag.channel,
        request(name, judged_set, *list(VARIANTS)[:4], include_queries=True),
        timeout_seconds=30,
        progressed=lambda done, total: told.append((done, total)),
    )
    assert told[-1] == (4 * len(ANIMALS), 4 * len(ANIMALS))
    assert [variant.name for variant in report.variants] == list(VARIANTS)[:4]
    by_words = report.variants[0]
    assert {figure.name: figure.mean for figure in by_words.figures}["ndcg"] == 1.0
    assert [each.document_ids[0] for each in by_words.queries] == list(ANIMALS)
    for variant in report.variants:
        assert {figure.name: figure.mean for figure in variant.figures}["recall"] == 1.0
        assert variant.failed_count == variant.degraded_count == 0
        assert variant.latency_p50.ToNanoseconds() > 0
    await delete_scratch(rag.channel, name)
    listed = await rag.corpus.ListCollections(corpus.ListCollectionsRequest(), timeout=5)
    assert name not in {each.name for each in listed.collections}


async def test_searches_that_were_degraded_are_counted(rag, judged_set):
    name = await fill(rag, judged_set)
    rag.balancer.embed_fault = PeerUnavailable("balancer", "away")
    report = await evaluate(
        rag.channel,
        request(name, judged_set, "hybrid-convex"),
        timeout_seconds=30,
        progressed=lambda done, total: None,
    )
    assert report.variants[0].degraded_count == len(ANIMALS)
    assert report.variants[0].failed_count == 0


async def test_another_tenant_s_collection_cannot_be_evaluated(rag, judged_set):
    name = await fill(rag, judged_set)
    call = EvaluationServiceStub(rag.channel).Evaluate(
        request(name, judged_set, "keyword"), metadata=[("x-pannier-tenant-id", "other")], timeout=5
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call.read()
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_scratch_collection_that_never_came_to_be_is_deleted_without_fuss(rag):
    await delete_scratch(rag.channel, new_scratch_name())
