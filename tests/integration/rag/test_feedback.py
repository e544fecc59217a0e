"""Users say what they think of answers, and bad answers are not given again."""

import asyncio

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from pannier.cache.v1 import semantic_pb2
from pannier.rag.v1 import rag_service_pb2
from pannier.rag.v1 import usage_service_pb2 as pb
from services.common.errors import PeerUnavailable, StatusCode
from tests.integration.rag.bookkeeping import ACME, ANN, BOB, DOCUMENTS, GOOD, ask, rows, usage_stub
from tests.integration.rag.conftest import as_tenant
from tests.kit.rpc import error_of


@pytest.fixture
async def filled(rag):
    await rag.ingest(DOCUMENTS)
    await rag.told()
    rag.balancer.answer = GOOD
    return rag


async def submit(rag, query_id, rating, *, metadata=ANN, **fields):
    request = pb.SubmitFeedbackRequest(query_id=query_id, rating=rating, **fields)
    return await usage_stub(rag).SubmitFeedback(request, metadata=metadata, timeout=20)


def listed(rag, *, metadata=ACME, **fields):
    return usage_stub(rag).ListFeedback(
        pb.ListFeedbackRequest(**fields), metadata=metadata, timeout=20
    )


async def test_what_is_said_is_kept_with_all_of_it(filled):
    answered = await ask(filled)
    await submit(
        filled,
        answered.query_id,
        1,
        reasons=["helpful", "short"],
        comment="Good \u0000 answer",
        corrected_answer="Press it twice.",
        relevant_passage_ids=["17"],
    )
    page = await listed(filled)
    (found,) = page.feedback
    assert (found.query_id, found.user_id, found.rating) == (answered.query_id, "ann", 1)
    assert list(found.reasons) == ["helpful", "short"]
    assert found.comment == "Good \ufffd answer"
    assert found.corrected_answer == "Press it twice."
    assert (found.mode, found.model) == ("rag", "talker:latest")
    assert (page.counts.positive_count, page.counts.negative_count) == (1, 0)


async def test_a_second_word_of_a_user_replaces_the_first(filled):
    answered = await ask(filled)
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(submit(filled, answered.query_id, 1))
    await submit(filled, answered.query_id, 0, comment="Well.")
    await submit(filled, answered.query_id, 1, metadata=BOB)
    page = await listed(filled)
    assert {(each.user_id, each.rating) for each in page.feedback} == {("ann", 0), ("bob", 1)}
    assert len((await listed(filled, rating=1)).feedback) == 1
    usage = await usage_stub(filled).GetUsage(pb.GetUsageRequest(), metadata=ACME, timeout=20)
    assert (usage.feedback.positive_count, usage.feedback.neutral_count) == (1, 1)


async def test_only_the_own_tenants_queries_can_be_rated(filled):
    answered = await ask(filled)
    for tenant, query_id in (("other", answered.query_id), ("acme", "unknown")):
        error = await error_of(submit(filled, query_id, -1, metadata=as_tenant(tenant)))
        assert (error.status_code, error.error_reason) == (StatusCode.NOT_FOUND, "QUERY_NOT_FOUND")
    assert filled.cache.outcomes.empty()


async def test_a_bad_answer_from_the_cache_is_taken_out_of_it(filled):
    first = await ask(filled)
    again = await ask(filled)
    assert again.origin == rag_service_pb2.ANSWER_ORIGIN_CACHED
    assert not (await submit(filled, again.query_id, 0)).cache_entry_removed
    assert (await submit(filled, again.query_id, -1)).cache_entry_removed
    report = filled.cache.outcomes.get_nowait()
    assert report.verdict == semantic_pb2.MATCH_VERDICT_WRONG
    assert report.judge == semantic_pb2.MATCH_JUDGE_PERSON
    # It is the entry that the first answer was kept as.
    assert (await submit(filled, first.query_id, -1)).cache_entry_removed
    assert filled.cache.outcomes.get_nowait().entry_id == report.entry_id


@pytest.mark.parametrize("mode", ["QUERY_MODE_DIRECT", "QUERY_MODE_RAG"])
async def test_after_a_bad_answer_the_model_is_asked_again(filled, mode):
    first = await ask(filled, mode=mode)
    count = len(filled.balancer.chats)
    again = await ask(filled, mode=mode)
    assert again.origin == rag_service_pb2.ANSWER_ORIGIN_CACHED
    assert len(filled.balancer.chats) == count
    assert (await submit(filled, again.query_id, -1)).cache_entry_removed
    for entries in filled.cache.answered.values():
        entries.clear()
    anew = await ask(filled, mode=mode)
    assert anew.origin == rag_service_pb2.ANSWER_ORIGIN_GENERATED
    assert len(filled.balancer.chats) == count + 1
    kept = await ask(filled, mode=mode)
    assert kept.origin == rag_service_pb2.ANSWER_ORIGIN_CACHED
    assert (await submit(filled, first.query_id, -1)).cache_entry_removed


async def test_who_was_given_the_answer_of_another_call_can_have_it_taken_out_of_the_cache(filled):
    filled.balancer.hold = asyncio.Event()
    first = asyncio.ensure_future(ask(filled))
    async with asyncio.timeout(10):
        while not filled.balancer.chats:
            await asyncio.sleep(0.005)
        second = asyncio.ensure_future(ask(filled))
        await filled.cache.followed.wait()
    filled.balancer.hold.set()
    await first
    while not filled.cache.invalidations.empty():
        filled.cache.invalidations.get_nowait()
    assert (await submit(filled, (await second).query_id, -1)).cache_entry_removed
    (kept,) = filled.cache.semantic_requests
    _, told = filled.cache.invalidations.get_nowait()
    assert told == [tag.custom for tag in kept.control.tags if tag.custom]


@pytest.mark.parametrize("fails", ["Invalidate", "ReportOutcome"])
async def test_where_the_cache_can_be_told_but_one_thing_it_is_told_that(filled, fails):
    answered = await ask(filled)
    while not filled.cache.invalidations.empty():
        filled.cache.invalidations.get_nowait()
    filled.cache.faults[fails] = PeerUnavailable("store", "gone")
    assert not (await submit(filled, answered.query_id, -1)).cache_entry_removed
    assert filled.cache.outcomes.empty() == (fails == "ReportOutcome")
    assert filled.cache.invalidations.empty() == (fails == "Invalidate")


async def test_an_answer_that_was_never_kept_is_in_no_cache(filled):
    answered = await ask(filled, mode="QUERY_MODE_DIRECT", cache_policy="CACHE_POLICY_BYPASS")
    assert not (await submit(filled, answered.query_id, -1)).cache_entry_removed


async def test_a_query_that_another_replica_has_answered_can_be_rated(start_rag):
    rag = await start_rag(query_log_recent_count=1)
    await rag.ingest(DOCUMENTS)
    await rag.told()
    rag.balancer.answer = GOOD
    answered = await ask(rag)
    await ask(rag, "Which animal is quick?")
    await usage_stub(rag).ListProfiles(pb.ListProfilesRequest(), metadata=ACME, timeout=20)
    # As releases after and before this one may have kept it.
    await rows(
        rag,
        "UPDATE rag.query_log"
        " SET cache_entry = cache_entry - 'question_digest' || '{\"later\": 1}'",
    )
    assert (await submit(rag, answered.query_id, -1)).cache_entry_removed


async def test_a_cache_that_is_away_keeps_nobody_from_saying_something(filled):
    answered = await ask(filled)
    filled.cache.fault = PeerUnavailable("store", "gone")
    assert not (await submit(filled, answered.query_id, -1)).cache_entry_removed
    assert (await listed(filled)).counts.negative_count == 1


async def test_feedback_is_paged(filled):
    answered = await ask(filled)
    for number in range(5):
        await submit(
            filled,
            answered.query_id,
            1,
            metadata=[*ACME, ("x-pannier-user-id", f"user-{number}")],
        )
    seen, token = [], ""
    while True:
        page = await listed(filled, page_size=2, page_token=token)
        seen += [each.user_id for each in page.feedback]
        assert page.counts.positive_count == 5
        token = page.next_page_token
        if not token:
            break
    assert seen == [f"user-{number}" for number in reversed(range(5))]


async def test_what_breaks_a_rule_is_refused(rag):
    bad = await error_of(submit(rag, "", 2))
    assert [each.field for each in bad.violations] == ["query_id", "rating"]
    error = await error_of(listed(rag, rating=5, since=Timestamp(seconds=-1)))
    assert [each.field for each in error.violations] == ["rating", "since"]
    assert not await rows(rag, "SELECT 1 FROM rag.feedback")
