import asyncio
from dataclasses import dataclass, replace

import pytest
from opentelemetry.trace import NoOpTracer

from pannier.rag.v1 import evaluation_service_pb2 as pb
from services.common.clock import SystemClock
from services.common.errors import InvalidRequest
from services.rag.core.errors import CollectionNotFound, StoreUnavailable
from services.rag.core.evaluation import (
    DEFAULT_VARIANTS,
    JudgedQuery,
    SearchResult,
    Variant,
    percentile,
    summarise,
)
from services.rag.core.options import RetrievalOptions
from services.rag.core.passages import FusedChunk, Passage, RankedPassage
from services.rag.core.profile import DegradationReason
from services.rag.core.retrieved import Band, Confidence, Retrieved
from services.rag.evaluate import Evaluation, EvaluationProgress, EvaluationTask
from services.rag.evaluation_convert import task_of, to_report
from services.rag.recorder import Recorder

QUERIES = [
    JudgedQuery("q1", "first", {"a": 1, "b": 0}),
    JudgedQuery("q2", "second", {"b": 2}),
    JudgedQuery("q3", "third", {"c": 0}),
]


def search(*document_ids: str, **facts) -> SearchResult:
    return SearchResult(document_ids=document_ids, seconds=0.01, **facts)


def test_figures_are_means_over_the_queries_that_have_an_answer():
    report = summarise(QUERIES, {"one": [search("a"), search("x", "b"), search("c")]}, depth=10)
    assert (report.query_count, report.unanswerable_count) == (3, 1)
    (variant,) = report.variants
    assert [each.query_id for each in variant.queries] == ["q1", "q2"]
    assert variant.figures["mrr"].mean == pytest.approx((1 + 1 / 2) / 2)
    assert variant.figures["recall"].mean == 1.0
    assert variant.gains == {}


def test_gains_compare_with_the_first_way_query_by_query():
    report = summarise(
        QUERIES[:2],
        {"one": [search("x"), search("b")], "two": [search("a"), search("b")]},
        depth=10,
    )
    gain = report.variants[1].gains["mrr"]
    assert gain.mean == pytest.approx(0.5)
    assert gain.low >= 0.0


def test_the_confidence_is_judged_by_what_was_found():
    found, missed = search("a", confidence=0.9), search("x", confidence=0.2)
    both = summarise(QUERIES[:2], {"one": [found, missed]}, depth=10)
    assert both.variants[0].confidence_auc == 1.0
    alike = summarise(QUERIES[:1], {"one": [found]}, depth=10)
    assert alike.variants[0].confidence_auc is None


def test_percentiles_are_values_that_occurred():
    assert [percentile([3, 1, 2, 4], ratio) for ratio in (0.5, 0.95)] == [2, 4]
    assert percentile([], 0.5) == 0.0


@dataclass
class FakeRetriever:
    """Finds the document of the same name as the question, twice."""

    running: int = 0
    most: int = 0
    missing: bool = False

    async def look_up(self, tenant_id, collection, recorder):
        if self.missing:
            raise CollectionNotFound(collection)

    async def retrieve(self, tenant_id, collection, question, options, recorder):
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0)
            if question == "broken":
                raise StoreUnavailable("gone")
            if question == "degraded":
                recorder.degrade(DegradationReason.EMBEDDING_UNAVAILABLE, "embed", "away")
            return Retrieved(
                (ranked(question, 1), ranked(question, 2), ranked("other", 3)),
                Confidence(score=0.5, band=Band.MEDIUM),
            )
        finally:
            self.running -= 1


def ranked(document_id: str, chunk_id: int) -> RankedPassage:
    passage = Passage(
        chunk_id=chunk_id,
        collection="docs",
        document_id=document_id,
        title="",
        source_uri="",
        media_type="text/plain",
        metadata={},
        ordinal=0,
        char_start=0,
        char_end=1,
        text="x",
        heading_path=(),
        header="",
        token_estimate=1,
    )
    return RankedPassage(passage, FusedChunk(chunk_id=chunk_id, score=1.0))


def task(*texts: str, **changes) -> EvaluationTask:
    queries = [JudgedQuery(f"q{index}", text, {text: 1}) for index, text in enumerate(texts)]
    base = EvaluationTask(
        collection="docs",
        queries=queries,
        variants=[Variant("one", RetrievalOptions()), Variant("two", RetrievalOptions())],
        depth=10,
        concurrency=2,
    )
    return replace(base, **changes)


async def run(retriever: FakeRetriever, asked: EvaluationTask):
    clock = SystemClock()
    evaluation = Evaluation(
        retriever=retriever,
        make_recorder=lambda: Recorder(clock=clock, tracer=NoOpTracer()),
        clock=clock,
    )
    return [event async for event in evaluation.run("acme", asked)]


async def test_every_query_is_searched_for_in_every_way():
    retriever = FakeRetriever()
    *progress, report = await run(retriever, task("a", "b", "c", "d", "e"))
    assert progress == [EvaluationProgress(count, 10) for count in range(1, 11)]
    assert [variant.name for variant in report.variants] == ["one", "two"]
    for variant in report.variants:
        assert [each.search.document_ids for each in variant.queries] == [
            (name, "other") for name in "abcde"
        ]
    assert retriever.most == 2


async def test_a_search_that_fails_counts_as_one_that_found_nothing():
    *_, report = await run(FakeRetriever(), task("a", "broken", "degraded"))
    first = report.variants[0]
    assert [each.search.failure_reason for each in first.queries] == ["", "STORE_UNAVAILABLE", ""]
    assert [each.search.degraded for each in first.queries] == [False, False, True]
    assert first.figures["mrr"].mean == pytest.approx(2 / 3)


async def test_a_missing_collection_is_told_of_at_once():
    with pytest.raises(CollectionNotFound):
        await run(FakeRetriever(missing=True), task("a"))


async def test_whoever_stops_listening_stops_the_searches():
    retriever, clock = FakeRetriever(), SystemClock()
    evaluation = Evaluation(
        retriever=retriever,
        make_recorder=lambda: Recorder(clock=clock, tracer=NoOpTracer()),
        clock=clock,
    )
    events = evaluation.run("acme", task(*"abcdefgh"))
    await anext(events)
    await events.aclose()
    assert retriever.running == 0


def request(**changes) -> pb.EvaluateRequest:
    judgements = [pb.RelevanceJudgement(document_id="a", grade=1)]
    query = pb.EvaluationQuery(query_id="q", text="question", judgements=judgements)
    return pb.EvaluateRequest(**{"collection": "docs", "queries": [query], **changes})


def test_a_request_without_wishes_has_the_usual_ones():
    asked = task_of(request())
    assert [each.name for each in asked.variants] == [each.name for each in DEFAULT_VARIANTS]
    assert (asked.depth, asked.concurrency) == (10, 4)
    assert asked.queries[0].judgements == {"a": 1}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"collection": ""}, "collection"),
        ({"queries": []}, "queries"),
        ({"queries": [pb.EvaluationQuery(query_id="q", text="x")]}, "queries[0].judgements"),
        ({"queries": [*request().queries] * 2}, "queries"),
        ({"depth": 101}, "depth"),
        ({"concurrency": 33}, "concurrency"),
        ({"variants": [pb.EvaluationVariant()]}, "variants[0].name"),
        ({"variants": [pb.EvaluationVariant(name="a")] * 17}, "variants"),
    ],
)
def test_what_breaks_the_rules_is_refused(changes, field):
    with pytest.raises(InvalidRequest) as refused:
        task_of(request(**changes))
    assert field in {each.field for each in refused.value.violations}


def test_each_query_is_told_of_only_where_asked_for():
    report = summarise(QUERIES[:1], {"one": [search("a", "x")]}, depth=1)
    (plain,) = to_report(report, include_queries=False).completed.variants
    (full,) = to_report(report, include_queries=True).completed.variants
    assert list(plain.queries) == []
    assert list(full.queries[0].document_ids) == ["a"]
    assert full.queries[0].figures["ndcg"] == 1.0
    assert {figure.name: figure.mean for figure in plain.figures}["ndcg"] == 1.0
