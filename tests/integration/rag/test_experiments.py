"""Experiments share out queries, say so, and are compared."""

import asyncio
import json

import pytest

from pannier.rag.v1 import rag_service_pb2
from pannier.rag.v1 import usage_service_pb2 as pb
from services.common.errors import StatusCode
from services.rag.core.experiment import parse_experiments
from tests.integration.rag.bookkeeping import ACME, DOCUMENTS, GOOD, PRICED, ask, usage_stub
from tests.integration.rag.conftest import as_tenant
from tests.kit.rpc import error_of

EXPERIMENTS = parse_experiments(
    json.dumps(
        [
            {
                "name": "size",
                "variants": [
                    {"name": "usual", "share": 0.5},
                    {"name": "one", "share": 0.5, "overrides": {"passage_count": 1}},
                ],
            }
        ]
    )
)


@pytest.fixture
async def filled(start_rag):
    rag = await start_rag(experiments=EXPERIMENTS, **PRICED)
    await rag.ingest(DOCUMENTS)
    await rag.told()
    return rag


def user(number):
    return [*ACME, ("x-pannier-user-id", f"user-{number}")]


def report(rag, name="size", *, metadata=ACME):
    return usage_stub(rag).GetExperimentReport(
        pb.GetExperimentReportRequest(name=name), metadata=metadata, timeout=20
    )


async def test_a_variant_changes_the_answer_and_is_told(filled):
    counts = {"usual": set(), "one": set()}
    for number in range(12):
        found = await filled.rag.Retrieve(
            rag_service_pb2.RetrieveRequest(
                collection="docs", query="fox and the machine", options={}
            ),
            metadata=user(number),
            timeout=20,
        )
        counts[found.experiment_variants["size"]].add(len(found.passages))
        answered = await ask(filled, metadata=user(number))
        assert answered.experiment_variants == found.experiment_variants
    assert counts["one"] == {1}
    assert max(counts["usual"]) > 1


async def test_variants_do_not_share_cached_answers(filled):
    origins = {}
    filled.balancer.answer = GOOD
    for number in range(12):
        answered = await ask(filled, metadata=user(number))
        origins.setdefault(answered.experiment_variants["size"], []).append(answered.origin)
    for found in origins.values():
        assert found[0] == rag_service_pb2.ANSWER_ORIGIN_GENERATED
        assert set(found[1:]) == {rag_service_pb2.ANSWER_ORIGIN_CACHED}


async def test_the_report_compares_what_the_log_knows(filled):
    async def one(number):
        answered = await ask(
            filled, metadata=user(number), cache_policy=rag_service_pb2.CACHE_POLICY_BYPASS
        )
        rating = 1 if answered.experiment_variants["size"] == "one" else -1
        await usage_stub(filled).SubmitFeedback(
            pb.SubmitFeedbackRequest(query_id=answered.query_id, rating=rating),
            metadata=user(number),
            timeout=20,
        )
        return answered

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(number)) for number in range(16)]
    answers = [task.result() for task in tasks]
    found = await report(filled)
    usual, one_passage = found.variants
    assert (usual.variant, one_passage.variant) == ("usual", "one")
    for each in found.variants:
        own = [answer for answer in answers if answer.experiment_variants["size"] == each.variant]
        assert each.query_count == len(own) == each.quality_count
        mean = sum(answer.quality.score for answer in own) / len(own)
        assert each.mean_quality == pytest.approx(mean)
        assert each.share_ratio == 0.5
        assert each.cost_nanos == len(own) * (100_000 + 20_000)
        assert each.duration_p95.ToNanoseconds() >= each.duration_p50.ToNanoseconds() > 0
    assert not usual.HasField("quality_difference")
    difference = one_passage.quality_difference
    assert difference.low <= difference.difference <= difference.high
    assert (usual.positive_ratio, one_passage.positive_ratio) == (0.0, 1.0)
    assert one_passage.positive_ratio_low < 1.0
    other = await report(filled, metadata=as_tenant("other"))
    assert [each.query_count for each in other.variants] == [0, 0]


async def test_an_experiment_that_is_not_set_is_told_with_those_that_are(filled):
    error = await error_of(report(filled, "'; --"))
    assert (error.status_code, error.error_reason) == (StatusCode.NOT_FOUND, "EXPERIMENT_NOT_FOUND")
    assert "size" in error.message
    assert (await error_of(report(filled, ""))).violations[0].field == "name"
