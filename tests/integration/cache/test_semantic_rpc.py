"""The semantic layer over real gRPC."""

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from pannier.cache.v1 import invalidation_pb2, statistics_pb2
from pannier.cache.v1 import semantic_pb2 as pb
from services.common.identity import TENANT_HEADER
from tests.kit.semantic import answer, partition, unit, vector

QUESTION = "How is a forgotten password reset?"


def lookup(**fields) -> pb.LookupSemanticRequest:
    given = {"partition": partition(), "query": QUESTION, "vector": vector(unit(1))}
    return pb.LookupSemanticRequest(**(given | fields))


def store(**fields) -> pb.StoreSemanticRequest:
    given = {
        "partition": partition(),
        "query": QUESTION,
        "vector": vector(unit(1)),
        "answer": answer(),
    }
    return pb.StoreSemanticRequest(**(given | fields))


async def test_an_answer_goes_round(cache):
    missed = await cache.stub.LookupSemantic(lookup(mode="rag"))
    assert missed.outcome == pb.SEMANTIC_OUTCOME_MISS
    stored = await cache.stub.StoreSemantic(store())
    assert stored.stored
    found = await cache.stub.LookupSemantic(lookup(mode="rag"))
    assert found.outcome == pb.SEMANTIC_OUTCOME_HIT_EXACT
    assert found.match.answer == answer()
    report = pb.ReportOutcomeRequest(
        partition=partition(),
        entry_id=stored.entry_id,
        similarity=1.0,
        verdict=pb.MATCH_VERDICT_WRONG,
        judge=pb.MATCH_JUDGE_PERSON,
    )
    assert (await cache.stub.ReportOutcome(report)).threshold == 0.95
    gone = await cache.stub.LookupSemantic(lookup())
    assert gone.outcome == pb.SEMANTIC_OUTCOME_MISS
    spans = [span for span in cache.spans.get_finished_spans() if "Semantic" in span.name]
    results = [span.attributes.get("app.cache.result") for span in spans]
    assert results == ["miss", None, "hit", "miss"]
    outcomes = [span.attributes.get("app.cache.outcome") for span in spans]
    assert outcomes == ["miss", None, "exact", "miss"]


async def test_verdicts_on_similar_matches_show_in_the_statistics(cache):
    stored = await cache.stub.StoreSemantic(store())
    report = pb.ReportOutcomeRequest(
        partition=partition(),
        entry_id=stored.entry_id,
        similarity=0.961,
        verdict=pb.MATCH_VERDICT_WRONG,
        judge=pb.MATCH_JUDGE_MODEL,
    )
    stats = await cache.stub.GetStats(statistics_pb2.GetStatsRequest())
    assert stats.semantic.entry_count == 1
    reported = await cache.stub.ReportOutcome(report)
    assert reported.threshold == pytest.approx(0.965)
    stats = await cache.stub.GetStats(statistics_pb2.GetStatsRequest())
    assert (stats.semantic.verified_count, stats.semantic.wrong_count) == (1, 1)
    await cache.stub.ReportOutcome(
        pb.ReportOutcomeRequest(
            partition=partition(),
            entry_id=stored.entry_id,
            similarity=0.961,
            verdict=pb.MATCH_VERDICT_WRONG,
            judge=pb.MATCH_JUDGE_EVIDENCE,
        )
    )
    stats = await cache.stub.GetStats(statistics_pb2.GetStatsRequest())
    assert (stats.semantic.verified_count, stats.semantic.wrong_count) == (1, 1)
    (layer,) = (each for each in stats.layers if each.layer == statistics_pb2.LAYER_SEMANTIC)
    for window in layer.windows:
        assert (window.false_hits.verified_count, window.false_hits.wrong_count) == (1, 1)
        assert window.false_hits.ratio == 1
    assert stats.semantic.entry_count == 0


async def test_tenants_do_not_meet(cache):
    await cache.stub.StoreSemantic(store(), metadata=[(TENANT_HEADER, "acme")])
    other = await cache.stub.LookupSemantic(lookup(), metadata=[(TENANT_HEADER, "other")])
    assert other.outcome == pb.SEMANTIC_OUTCOME_MISS
    own = await cache.stub.LookupSemantic(lookup(), metadata=[(TENANT_HEADER, "acme")])
    assert own.outcome == pb.SEMANTIC_OUTCOME_HIT_EXACT


async def test_an_invalidated_collection_takes_its_answers_along(cache):
    request = store()
    request.control.tags.add(collection="handbook")
    await cache.stub.StoreSemantic(request)
    selector = invalidation_pb2.Selector()
    selector.tag.collection = "handbook"
    invalidation = invalidation_pb2.InvalidateRequest(selectors=[selector], dry_run=False)
    assert (await cache.stub.Invalidate(invalidation)).applied
    assert (await cache.stub.LookupSemantic(lookup())).outcome == pb.SEMANTIC_OUTCOME_MISS


@pytest.mark.parametrize(
    ("fields", "field_name"),
    [
        ({"answer": AnyMessage(value=b"x" * (1 << 20))}, "answer"),
        ({"vector": vector(unit(1) * float("nan"))}, "vector.float32_le"),
        ({"vector": vector(unit(1, 7))}, "vector.dimension"),
        ({"query": ""}, "query"),
    ],
)
async def test_what_breaks_a_rule_is_not_kept(cache, fields, field_name):
    await cache.stub.StoreSemantic(store(query="another question"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cache.stub.StoreSemantic(store(**fields))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field_name in caught.value.details()
    missed = await cache.stub.LookupSemantic(lookup())
    assert missed.outcome == pb.SEMANTIC_OUTCOME_MISS
