"""Answers are given again to those who ask the same, as long as what they stand on still stands."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.timestamp_pb2 import Timestamp

from pannier.balancer.v1 import balancer_service_pb2 as balancer
from pannier.cache.v1 import semantic_pb2 as semantic
from pannier.common.v1 import generation_pb2
from pannier.rag.v1 import corpus_service_pb2 as corpus
from pannier.rag.v1 import filter_pb2
from pannier.rag.v1 import rag_service_pb2 as pb
from services.common.errors import PeerUnavailable, RelayedError, StatusCode
from tests.integration.rag.conftest import as_tenant, store_away
from tests.integration.rag.telemetry import finished, page_of
from tests.kit.questions import ACME, ANSWER, QUESTION, query, reasons
from tests.kit.rpc import error_of

DOCUMENTS = {
    "fox.md": "# Animals\n\nThe red fox jumps over the lazy dog. Foxes are quick.\n",
    "button.md": "# Machine\n\nPress the blue button to stop the machine. It stops in 5 seconds.\n",
    "cheese.md": "# Food\n\nCheese is made from milk. Milk comes from cows.\n",
    "tea.md": "# Drinks\n\nTea is made from leaves. Green tea comes from Asia.\n",
    "train.md": "# Travel\n\nA train to the sea leaves each hour. Tickets are sold on board.\n",
}
PARAPHRASE = "How can I stop the machine?"


@pytest.fixture
async def filled(rag):
    return await fill(rag)


async def fill(rag):
    await rag.ingest(DOCUMENTS)
    await rag.told()
    rag.balancer.answer = ANSWER
    return rag


async def ask(rag, text=QUESTION, **options):
    return await rag.rag.Query(query(text, **options), metadata=ACME, timeout=20)


async def delete(rag, document_id):
    request = corpus.DeleteDocumentRequest(collection="docs", document_id=document_id)
    await rag.corpus.DeleteDocument(request, metadata=ACME)


async def delete_collection(rag):
    request = corpus.DeleteCollectionRequest(collection="docs", confirm="docs")
    await rag.corpus.DeleteCollection(request, metadata=ACME)


def outcomes(response):
    return {stage.name: stage.cache_outcome for stage in response.profile.stages}


async def report(rag):
    async with asyncio.timeout(10):
        return await rag.cache.outcomes.get()


async def failed_verifications(rag):
    page = await page_of(rag)
    return page.value("rag_background_work_total", kind="verification", outcome="error")


async def test_the_same_words_need_neither_vector_nor_search(filled):
    first = await ask(filled)
    filled.cache.calls.clear()
    again = await ask(filled, f"  {QUESTION} ")
    assert again.origin == pb.ANSWER_ORIGIN_CACHED
    assert (again.answer, again.citations) == (first.answer, first.citations)
    assert again.passages == first.passages
    assert (again.cached.query, again.cached.similarity) == (QUESTION, 1.0)
    assert again.cached.age.seconds == 60
    assert dict(filled.cache.calls) == {"LookupSemantic": 1}


async def test_a_collection_that_is_gone_is_not_answered_from_though_the_cache_was_not_told(filled):
    await ask(filled)
    filled.cache.faults["Invalidate"] = PeerUnavailable("redis", "away")
    await delete_collection(filled)
    error = await error_of(ask(filled))
    assert error.error_reason == "COLLECTION_NOT_FOUND"


async def test_a_collection_made_anew_is_not_taken_for_the_old_one(filled):
    first = await ask(filled)
    assert (await ask(filled)).cached.query == QUESTION
    filled.cache.faults["Invalidate"] = PeerUnavailable("redis", "away")
    await delete_collection(filled)
    await filled.ingest(DOCUMENTS)
    response = await ask(filled)
    # The same passages make the same prompt, whose answer may be known; the question's may not be.
    assert not response.HasField("cached")
    old = {each.passage_id for each in first.passages}
    assert response.passages
    assert not old & {each.passage_id for each in response.passages}


@pytest.mark.parametrize("change", ["delete", "replace", "hide", "retag", "expire", "rename"])
async def test_an_answer_that_was_given_again_is_checked_anew_each_time(filled, change):
    await filled.ingest({"button.md": DOCUMENTS["button.md"]}, tags=["old"])
    only = pb.RetrievalOptions(filter=filter_pb2.DocumentFilter(any_tags=["old"]))
    for origin in (pb.ANSWER_ORIGIN_GENERATED, pb.ANSWER_ORIGIN_CACHED, pb.ANSWER_ORIGIN_CACHED):
        assert (await ask(filled, retrieval=only)).origin == origin
    filled.cache.faults["Invalidate"] = PeerUnavailable("redis", "away")
    if change == "delete":
        await delete(filled, "button.md")
    else:
        text = DOCUMENTS["button.md"].replace("blue", "green" if change == "replace" else "blue")
        header = {
            "tags": ["new" if change == "retag" else "old"],
            "readers": ["group:others"] if change == "hide" else [],
            "title": "Another" if change == "rename" else "",
        }
        if change == "expire":
            header["expire_time"] = Timestamp(seconds=1)
        await filled.ingest({"button.md": text}, **header)
    response = await ask(filled, retrieval=only)
    if change == "rename":
        assert {each.title for each in response.passages} == {"Another"}
    else:
        assert response.origin != pb.ANSWER_ORIGIN_CACHED
        assert all("blue" not in each.text for each in response.passages)


async def test_an_answer_is_not_given_again_once_a_document_of_it_expires(filled):
    # On a slow machine it may expire before it was given twice.
    for seconds in (1, 4, 16):
        soon = Timestamp()
        soon.FromDatetime(datetime.now(UTC) + timedelta(seconds=seconds))
        await filled.ingest({"button.md": DOCUMENTS["button.md"]}, expire_time=soon)
        origins = [(await ask(filled)).origin for _ in range(3)]
        if origins[1:] == [pb.ANSWER_ORIGIN_CACHED] * 2:
            break
    else:
        pytest.fail("it was never given again")
    async with asyncio.timeout(60):
        while (response := await ask(filled)).origin == pb.ANSWER_ORIGIN_CACHED:
            await asyncio.sleep(0.1)
    assert datetime.now(UTC) >= soon.ToDatetime(UTC)
    assert all("blue" not in each.text for each in response.passages)


def statements(rag):
    """How often passages, and whether their collection has changed, were asked for."""
    names = [each.name for each in finished(rag)]
    return names.count("SELECT chunk document collection"), names.count("SELECT collection")


async def test_passages_are_not_read_again_while_their_collection_is_unchanged(filled):
    first = await ask(filled)
    await ask(filled)
    read, looked = statements(filled)
    again = await ask(filled)
    assert again.passages == first.passages
    assert again.citations == first.citations
    assert statements(filled) == (read, looked + 1)


@pytest.mark.parametrize("changed", [False, True])
async def test_what_an_answer_was_made_from_is_looked_for_while_the_cache_is_asked(
    start_rag, changed
):
    rag = await fill(await start_rag(cache_time_limit_seconds=60.0))
    await ask(rag)
    await ask(rag)
    if changed:
        await rag.ingest({"other.md": "# Rain\n\nRain falls from clouds.\n"})
        await rag.told()
    read, looked = statements(rag)
    expected = read + changed, looked + 1
    rag.cache.holds["LookupSemantic"] = asyncio.Event()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        asked = group.create_task(ask(rag))
        while statements(rag) != expected:
            await asyncio.sleep(0.01)
        rag.cache.holds["LookupSemantic"].set()
    # Of a collection that has grown, more is looked at.
    assert changed or statements(rag) == expected
    assert asked.result().origin != pb.ANSWER_ORIGIN_GENERATED


async def test_what_is_looked_for_in_vain_is_left_where_the_cache_knows_nothing(filled):
    await ask(filled)
    await ask(filled)
    filled.cache.faults["LookupSemantic"] = PeerUnavailable("redis", "away")
    response = await ask(filled)
    assert response.origin == pb.ANSWER_ORIGIN_GENERATED
    assert "evidence_check" not in outcomes(response)
    async with asyncio.timeout(30):
        while (await page_of(filled)).value("connection_pool_connections", state="in_use"):
            pass


async def test_an_answer_served_while_the_store_is_away_counts_once(filled):
    await ask(filled)
    async with store_away(filled):
        response = await ask(filled)
    assert reasons(response.degradations) == {"STORE_UNAVAILABLE", "SERVED_STALE"}
    page = await page_of(filled)
    assert page.labels("rag_answer_reuse_total", "outcome") == {"miss": 1, "unchecked": 1}
    assert page.value("rag_retrievals_total", outcome="error") == 1


async def test_another_replica_serves_an_answer_while_the_store_is_away(start_rag, filled):
    first = await ask(filled)
    other = await start_rag(
        balancer_address=filled.balancer_address, cache_address=filled.cache_address
    )
    async with store_away(filled):
        # It has never been asked about this collection.
        response = await ask(other)
    assert response.answer == first.answer
    assert reasons(response.degradations) == {"STORE_UNAVAILABLE", "SERVED_STALE"}


async def test_a_question_that_means_the_same_gets_the_same_answer(filled):
    first = await ask(filled)
    similar = await ask(filled, PARAPHRASE)
    assert similar.origin == pb.ANSWER_ORIGIN_CACHED_SIMILAR
    assert similar.answer == first.answer
    assert similar.cached.query == QUESTION
    assert 0.8 <= similar.cached.similarity < 1
    assert outcomes(similar) == {
        "collection": "",
        "query_lookup": "miss",
        "embed_question": "miss",
        "semantic_lookup": "hit_similar",
        "evidence_check": "",
    }
    assert len(filled.balancer.chats) == 1


async def test_the_cache_is_told_whether_a_look_up_with_the_vector_follows(filled):
    def lookups():
        found = [(each.HasField("vector"), each.vector_follows) for each in asked]
        asked.clear()
        return found

    asked = filled.cache.semantic_lookups
    await ask(filled)
    assert lookups() == [(False, True), (True, False)]
    # What a question means depends on what was said before: its vector is not looked up.
    turn = pb.ConversationTurn(question=QUESTION, answer=ANSWER)
    await ask(filled, PARAPHRASE, history=[turn])
    assert lookups() == [(False, False)]


async def test_a_candidate_is_given_once_its_evidence_is_found_again(filled):
    first = await ask(filled)
    filled.cache.sure = False
    confirmed = await ask(filled, PARAPHRASE)
    assert confirmed.origin == pb.ANSWER_ORIGIN_CACHED_SIMILAR
    assert confirmed.answer == first.answer
    assert outcomes(confirmed)["semantic_lookup"] == "candidate"
    assert outcomes(confirmed)["evidence_check"] == "hit_confirmed"
    told = await report(filled)
    assert (told.verdict, told.judge) == (
        semantic.MATCH_VERDICT_RIGHT,
        semantic.MATCH_JUDGE_EVIDENCE,
    )
    assert told.served
    assert len(filled.balancer.chats) == 1


async def test_a_candidate_whose_evidence_is_not_found_is_not_given(filled):
    teas = {f"{name}.md": f"# {name} tea\n\nGreen tea comes from {name}.\n" for name in "ABCD"}
    await filled.ingest(teas)
    await filled.told()
    await ask(filled)
    filled.cache.sure, filled.cache.threshold = False, 0.0
    response = await ask(filled, "Where does green tea come from?")
    assert response.origin == pb.ANSWER_ORIGIN_GENERATED
    told = await report(filled)
    assert told.verdict == semantic.MATCH_VERDICT_WRONG
    assert not told.served
    names = [stage.name for stage in response.profile.stages]
    assert names.count("vector_search") == names.count("keyword_search") == 1


@pytest.mark.parametrize("text", [QUESTION, PARAPHRASE])
@pytest.mark.parametrize("sure", [True, False])
async def test_a_deleted_document_is_not_answered_from_though_the_cache_was_not_told(
    filled, text, sure
):
    await ask(filled)
    filled.cache.sure = sure
    filled.cache.faults["Invalidate"] = PeerUnavailable("redis", "away")
    await delete(filled, "button.md")
    response = await ask(filled, text)
    assert response.origin == pb.ANSWER_ORIGIN_REFUSED
    assert "blue button" not in response.answer
    assert all(passage.document_id != "button.md" for passage in response.passages)


async def test_a_changed_document_is_not_answered_from_though_the_cache_was_not_told(filled):
    await ask(filled)
    filled.cache.faults["Invalidate"] = PeerUnavailable("redis", "away")
    await filled.ingest({"button.md": "# Machine\n\nPull the green lever to stop the machine.\n"})
    response = await ask(filled)
    assert outcomes(response)["query_lookup"] == "hit_exact"
    assert outcomes(response)["evidence_check"] == "miss"
    assert response.origin == pb.ANSWER_ORIGIN_GENERATED
    assert "green lever" in response.passages[0].text
    counted = (await page_of(filled)).labels("rag_answer_reuse_total", "outcome")
    assert counted == {"miss": 1, "outdated": 1}


@pytest.mark.parametrize("sure", [True, False])
async def test_a_document_that_the_filter_lets_pass_no_more_is_not_answered_from(filled, sure):
    await filled.ingest({"button.md": f"{DOCUMENTS['button.md']} "}, tags=["public"])
    await filled.told()
    only = pb.RetrievalOptions(filter=filter_pb2.DocumentFilter(any_tags=["public"]))
    assert (await ask(filled, retrieval=only)).origin == pb.ANSWER_ORIGIN_GENERATED
    filled.cache.sure = sure
    assert (await ask(filled, retrieval=only)).cached.query
    filled.cache.faults["Invalidate"] = PeerUnavailable("redis", "away")
    request = corpus.UpdateDocumentRequest(
        collection="docs",
        document_id="button.md",
        labels=corpus.DocumentLabels(tags=["private"]),
        update_mask={"paths": ["tags"]},
    )
    await filled.corpus.UpdateDocument(request, metadata=ACME)
    response = await ask(filled, retrieval=only)
    assert outcomes(response)["query_lookup"] in ("hit_exact", "candidate")
    assert response.origin == pb.ANSWER_ORIGIN_NO_MATCH


async def test_a_document_made_anew_is_not_taken_for_the_old_one(filled):
    await ask(filled)
    filled.cache.faults["Invalidate"] = PeerUnavailable("redis", "away")
    await delete(filled, "button.md")
    await filled.ingest({"button.md": DOCUMENTS["button.md"]})
    assert (await ask(filled)).cached.query == ""


async def test_an_answer_from_before_the_collection_grew_has_to_be_confirmed(filled):
    first = await ask(filled)
    await filled.ingest({"bicycle.md": "# Sport\n\nBicycles have two wheels.\n"})
    await filled.told()
    again = await ask(filled)
    assert (again.origin, again.answer) == (pb.ANSWER_ORIGIN_CACHED, first.answer)
    assert outcomes(again)["query_lookup"] == "candidate"
    assert outcomes(again)["evidence_check"] == "hit_confirmed"
    assert outcomes(again)["vector_search"] == ""


async def test_a_new_answer_takes_the_place_of_one_that_no_longer_holds(filled):
    await ask(filled)
    await filled.ingest({"button.md": "# Machine\n\nPull the green lever to stop the machine.\n"})
    await filled.told()
    filled.balancer.answer = "Pull the green lever to stop the machine [1]."
    assert (await ask(filled)).origin == pb.ANSWER_ORIGIN_GENERATED
    again = await ask(filled)
    assert outcomes(again)["query_lookup"] == "hit_exact"
    assert "green lever" in again.passages[0].text


@pytest.mark.parametrize(
    "options",
    [
        {"retrieval": pb.RetrievalOptions(passage_count=2)},
        {"retrieval": pb.RetrievalOptions(fusion=pb.FUSION_METHOD_RRF)},
        {"sampling": generation_pb2.SamplingOptions(temperature=1.0)},
        {"sampling": generation_pb2.SamplingOptions(max_output_token_count=20)},
    ],
)
async def test_who_asks_for_something_else_gets_something_else(filled, options):
    await ask(filled)
    assert (await ask(filled, **options)).cached.query == ""


async def test_another_tenant_and_another_collection_share_nothing(filled):
    await ask(filled)
    await filled.ingest(DOCUMENTS, collection="other")
    assert (await ask(filled, collection="other")).cached.query == ""
    await filled.ingest(DOCUMENTS, tenant="rival")
    response = await filled.rag.Query(query(), metadata=as_tenant("rival"), timeout=20)
    assert response.cached.query == ""


async def test_what_is_kept_says_nothing_of_the_call_it_came_from(filled):
    response = await ask(filled)
    (kept,) = filled.cache.semantic_requests
    message = pb.QueryResponse()
    assert kept.answer.Unpack(message)
    assert message.answer == response.answer
    assert not message.trace_id
    assert not message.backend_id
    assert not message.HasField("profile")
    (evidence,) = kept.evidence
    assert evidence.document_id == "button.md"
    assert evidence.passage_id == response.passages[0].passage_id
    assert len(evidence.content_digest) == 40
    tags = list(kept.control.tags)
    assert tags[0].document.collection == "docs"
    assert tags[0].document.document_id == "button.md"
    assert len(tags) == len(DOCUMENTS) + 1
    assert tags[-1].custom.startswith("question ")
    assert kept.control.basis_time.ToNanoseconds() > 0
    assert kept.usage.prompt_token_count == 100


@pytest.mark.parametrize(
    "answer",
    [
        "It is not known.",
        "The sources do not contain the answer [1].",
        "I cannot answer that from what is given [1].",
    ],
)
async def test_an_answer_that_is_none_is_not_kept_for_others(filled, answer):
    filled.balancer.answer = answer
    await ask(filled)
    assert not filled.cache.semantic_requests


async def test_a_cut_answer_is_not_kept_for_others(filled):
    filled.balancer.finish_reason = generation_pb2.FINISH_REASON_LENGTH
    await ask(filled)
    assert not filled.cache.semantic_requests


async def test_a_lesser_answer_is_not_kept_for_others(filled):
    filled.balancer.embed_fault = PeerUnavailable("ollama", "away")
    await ask(filled)
    filled.balancer.fault = RelayedError(
        "all failed", code=StatusCode.UNAVAILABLE, reason="ALL_ATTEMPTS_FAILED"
    )
    await ask(filled, "A new question about cheese?")
    assert not filled.cache.semantic_requests


async def test_bypass_neither_finds_nor_keeps(filled):
    await ask(filled, cache_policy=pb.CACHE_POLICY_BYPASS)
    assert not filled.cache.semantic_requests


async def test_refresh_computes_anew_and_keeps_that(filled):
    await ask(filled)
    filled.balancer.answer = "To stop the machine, press the blue button [1]."
    fresh = await ask(filled, cache_policy=pb.CACHE_POLICY_REFRESH)
    assert fresh.origin == pb.ANSWER_ORIGIN_GENERATED
    assert outcomes(fresh)["query_lookup"] == "bypassed"
    again = await ask(filled)
    assert again.answer == "To stop the machine, press the blue button [1]."
    assert again.origin == pb.ANSWER_ORIGIN_CACHED


async def test_what_the_cache_gives_back_spoilt_is_a_miss(filled):
    await ask(filled)
    (kept,) = filled.cache.semantic_requests
    packed = AnyMessage()
    packed.Pack(pb.GetStatsRequest())
    kept.answer.CopyFrom(packed)
    assert outcomes(await ask(filled))["query_lookup"] == "miss"
    (kept,) = filled.cache.semantic_requests
    kept.answer.Pack(pb.QueryResponse(answer="Made up [1].", citations=[pb.Citation(marker=1)]))
    assert (await ask(filled)).answer != "Made up [1]."


async def test_a_reused_answer_is_streamed_like_any_other(filled):
    await ask(filled)
    call = filled.rag.StreamQuery(
        pb.StreamQueryRequest(query=query(PARAPHRASE)), metadata=ACME, timeout=20
    )
    events = [event async for event in call]
    events = [event for event in events if not event.HasField("progress")]
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds == ["started", "retrieved", "text_delta", "citation", "citation", "completed"]
    assert events[1].retrieved.passages[0].document_id == "button.md"
    assert events[-1].completed.origin == pb.ANSWER_ORIGIN_CACHED_SIMILAR


async def test_a_match_is_verified_behind_all_others_where_that_is_wanted(filled):
    await ask(filled)
    filled.cache.wants_verification = True
    response = await ask(filled, PARAPHRASE)
    assert response.origin == pb.ANSWER_ORIGIN_CACHED_SIMILAR
    told = await report(filled)
    assert (told.verdict, told.judge) == (
        semantic.MATCH_VERDICT_RIGHT,
        semantic.MATCH_JUDGE_RECOMPUTATION,
    )
    assert not told.served
    assert filled.balancer.chats[-1].routing.priority == balancer.PRIORITY_BATCH
    assert PARAPHRASE in filled.balancer.chats[-1].messages[1].content


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (
            "Press the BLUE button  to stop the machine. It stops in 5 seconds [1]",
            semantic.MATCH_VERDICT_RIGHT,
        ),
        ("Something else altogether [3].", semantic.MATCH_VERDICT_WRONG),
        ("It stops by a button [1]. And more besides.", semantic.MATCH_VERDICT_UNDECIDED),
    ],
)
async def test_a_new_answer_decides_whether_the_old_one_was_right(filled, answer, verdict):
    await ask(filled)
    filled.cache.wants_verification = True
    filled.balancer.answer = answer
    await ask(filled, PARAPHRASE)
    assert (await report(filled)).verdict == verdict


async def test_a_verification_that_fails_says_nothing(filled):
    await ask(filled)
    filled.cache.wants_verification = True
    filled.balancer.fault = PeerUnavailable("ollama", "away")
    assert (await ask(filled)).origin == pb.ANSWER_ORIGIN_CACHED
    # It goes on behind the answer, and must have met the fault before that is gone.
    async with asyncio.timeout(10):
        while not await failed_verifications(filled):
            await asyncio.sleep(0.01)
    filled.balancer.fault = None
    await ask(filled)
    assert (await report(filled)).verdict == semantic.MATCH_VERDICT_RIGHT
    assert filled.cache.outcomes.empty()


@pytest.mark.parametrize(
    "method",
    [
        "LookupSemantic",
        "LookupEmbeddings",
        "LookupInference",
        "StreamInference",
        "FillInference",
        "StoreSemantic",
        "ReportOutcome",
    ],
)
async def test_no_answer_fails_because_of_the_cache(start_rag, method):
    # An answer that cannot be handed over keeps its lease, for which the next calls wait.
    filled = await fill(await start_rag(cache_wait_limit_seconds=0.1))
    filled.cache.faults[method] = RelayedError(
        "broken", code=StatusCode.INTERNAL, reason="INTERNAL"
    )
    filled.cache.sure = False
    for text in (QUESTION, PARAPHRASE, QUESTION):
        assert (await ask(filled, text)).answer == filled.balancer.answer
        call = filled.rag.StreamQuery(
            pb.StreamQueryRequest(query=query(text)), metadata=ACME, timeout=20
        )
        events = [event async for event in call]
        assert events[-1].completed.answer == filled.balancer.answer


async def test_statistics_tell_similar_questions_apart(filled):
    await ask(filled)
    await ask(filled)
    await ask(filled, PARAPHRASE)
    stats = await filled.rag.GetStats(pb.GetStatsRequest())
    (mode,) = stats.modes
    assert (mode.query_count, mode.cached_count, mode.similar_count) == (3, 2, 1)
    assert {"query_lookup", "semantic_lookup", "evidence_check"} <= {
        stage.name for stage in stats.stages
    }
