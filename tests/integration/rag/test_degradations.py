"""Each failure has a defined lesser answer, which says why it is one and what it is worth."""

import asyncio
import json
from contextlib import asynccontextmanager

import asyncpg
import pytest

from pannier.common.v1 import generation_pb2
from pannier.rag.v1 import corpus_service_pb2, quality_pb2
from pannier.rag.v1 import rag_service_pb2 as pb
from services.common.errors import PeerUnavailable, RelayedError, StatusCode
from tests.integration.rag.telemetry import page_of
from tests.kit.cache_peer import abort
from tests.kit.questions import ACME, ANSWER, DOCUMENTS, QUESTION, ask, query, reasons, stream
from tests.kit.rpc import error_of

OTHER = "Which animal jumps over the lazy dog?"
LIST_COLLECTIONS = corpus_service_pb2.ListCollectionsRequest()
FOREIGN = "Zirconium thermonuclear bureaucracy?"


def score_of(quality, factor=1.0):
    return factor * (
        0.35 * quality.retrieval_confidence
        + 0.40 * quality.groundedness
        + 0.15 * quality.citation_precision
        + 0.10 * quality.citation_coverage
    )


@asynccontextmanager
async def locked_store(rag, *tables):
    """Makes each statement on the tables wait until the store gives it up."""
    connection = await asyncpg.connect(rag.database_dsn)
    try:
        async with connection.transaction():
            for table in tables:
                await connection.execute(f"LOCK TABLE rag.{table}")
            yield
    finally:
        await connection.close()


@asynccontextmanager
async def lost_store(rag):
    """Ends all connections to the database and lets nobody in."""
    name = rag.database_dsn.partition("?")[0].rpartition("/")[2]
    connection = await asyncpg.connect(rag.database_dsn.replace(f"/{name}", "/postgres", 1))
    try:
        await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name
        )
        yield
    finally:
        await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await connection.close()


async def test_a_sound_answer_says_sentence_by_sentence_what_it_stands_on(filled):
    response = await ask(filled)
    assert [each.status for each in response.sentences] == [
        quality_pb2.SUPPORT_STATUS_SUPPORTED
    ] * 2
    assert {each.marker for each in response.sentences} == {1}
    quality = response.quality
    assert (quality.groundedness, quality.citation_precision, quality.citation_coverage) == (
        1,
        1,
        1,
    )
    assert quality.score == pytest.approx(score_of(quality))
    assert quality.score >= 0.8
    assert response.confidence.score == pytest.approx(quality.retrieval_confidence)
    again = await ask(filled)
    assert again.origin == pb.ANSWER_ORIGIN_CACHED
    assert again.sentences == response.sentences
    assert again.quality == quality


async def test_an_answer_with_a_made_up_number_is_not_kept(filled):
    filled.balancer.answer = (
        "Press the blue button to stop the machine [1]. It stops in 50 seconds [1]."
    )
    response = await ask(filled)
    assert response.sentences[1].status == quality_pb2.SUPPORT_STATUS_NUMBER_MISMATCH
    assert response.sentences[1].unfounded == ["50 seconds"]
    assert response.quality.score < 0.8
    assert not filled.cache.semantic_requests
    again = await ask(filled)
    assert again.origin == pb.ANSWER_ORIGIN_GENERATED
    assert len(filled.balancer.chats) == 2


@pytest.mark.parametrize("mode", [pb.QUERY_MODE_RAG, pb.QUERY_MODE_DIRECT])
async def test_an_answer_that_was_cut_at_its_limit_is_not_kept(filled, mode):
    filled.balancer.finish_reason = generation_pb2.FINISH_REASON_LENGTH
    for _ in range(2):
        response = await ask(filled, query(mode=mode))
        assert response.origin == pb.ANSWER_ORIGIN_GENERATED
        assert response.finish_reason == generation_pb2.FINISH_REASON_LENGTH
    assert len(filled.balancer.chats) == 2


async def test_an_answer_with_a_degradation_is_not_kept(filled):
    request = query(retrieval=pb.RetrievalOptions(rerank=pb.RERANK_POLICY_ON))
    for _ in range(2):
        response = await ask(filled, request)
        assert reasons(response.degradations) == {"RERANK_UNAVAILABLE"}
        assert response.origin == pb.ANSWER_ORIGIN_GENERATED


@pytest.mark.parametrize("policy", [pb.CACHE_POLICY_USE, pb.CACHE_POLICY_REFRESH])
async def test_json_that_has_not_the_form_asked_for_is_not_kept(filled, policy):
    filled.balancer.answer = '{"name": 5}'
    form = generation_pb2.OutputFormat(json_schema='{"properties": {"name": {"type": "string"}}}')
    request = query(mode=pb.QUERY_MODE_DIRECT, output_format=form, cache_policy=policy)
    assert (await ask(filled, request)).warnings
    again = await ask(filled, query(mode=pb.QUERY_MODE_DIRECT, output_format=form))
    assert again.origin == pb.ANSWER_ORIGIN_GENERATED


async def test_without_embeddings_words_are_searched(filled):
    filled.balancer.embed_fault = PeerUnavailable("ollama", "away")
    response = await ask(filled)
    assert reasons(response.degradations) == {"EMBEDDING_UNAVAILABLE"}
    assert response.origin == pb.ANSWER_ORIGIN_GENERATED
    assert response.quality.score == pytest.approx(score_of(response.quality, 0.85))


async def test_what_a_search_lacked_lowers_its_worth(filled):
    request = pb.RetrieveRequest(collection="docs", query=QUESTION)
    whole = await filled.rag.Retrieve(request, metadata=ACME)
    assert whole.quality_score == pytest.approx(whole.confidence.score) != 0
    filled.balancer.embed_fault = PeerUnavailable("ollama", "away")
    # The vector of the same question is remembered.
    request.query = OTHER
    lesser = await filled.rag.Retrieve(request, metadata=ACME)
    assert reasons(lesser.degradations) == {"EMBEDDING_UNAVAILABLE"}
    assert lesser.quality_score == pytest.approx(0.85 * lesser.confidence.score) != 0


async def test_without_embeddings_a_deep_answer_is_checked_by_words(filled):
    filled.balancer.embed_fault = PeerUnavailable("ollama", "away")
    response = await ask(filled, query(mode=pb.QUERY_MODE_DEEP))
    assert {"EMBEDDING_UNAVAILABLE", "VERIFICATION_REDUCED"} <= reasons(response.degradations)
    assert response.sentences[0].status == quality_pb2.SUPPORT_STATUS_SUPPORTED


async def test_a_deep_answer_is_checked_by_meaning_in_one_call(filled):
    response = await ask(filled, query(mode=pb.QUERY_MODE_DEEP))
    assert "VERIFICATION_REDUCED" not in reasons(response.degradations)
    assert "verify" in {stage.name for stage in response.profile.stages}
    assert response.sentences[0].status == quality_pb2.SUPPORT_STATUS_SUPPORTED
    assert "It stops in 5 seconds." in filled.balancer.embedded


async def test_without_a_model_the_sources_answer(filled):
    filled.balancer.fault = RelayedError(
        "all failed", code=StatusCode.UNAVAILABLE, reason="ALL_ATTEMPTS_FAILED"
    )
    response = await ask(filled, query(OTHER))
    assert response.origin == pb.ANSWER_ORIGIN_EXTRACTIVE
    assert "MODEL_UNAVAILABLE" in reasons(response.degradations)
    assert {each.status for each in response.sentences} == {quality_pb2.SUPPORT_STATUS_SUPPORTED}
    assert 0 < response.quality.score <= 0.45


def interruption():
    return RelayedError(
        "The backend went away.",
        code=StatusCode.ABORTED,
        reason="STREAM_INTERRUPTED",
        metadata={"backend_id": "fake:1", "emitted_character_count": "10"},
    )


async def test_a_unary_answer_that_breaks_off_is_tried_once_more(filled):
    filled.balancer.break_after, filled.balancer.break_error = 3, interruption()

    def mend(request):
        if len(filled.balancer.chats) > 1:
            filled.balancer.break_after = None

    filled.balancer.reply = mend
    response = await ask(filled)
    assert (response.origin, response.answer) == (pb.ANSWER_ORIGIN_GENERATED, ANSWER)
    assert not response.degradations
    assert len(filled.balancer.chats) == 2


async def test_a_unary_answer_that_breaks_off_twice_is_the_sources(filled):
    filled.balancer.break_after, filled.balancer.break_error = 3, interruption()
    response = await ask(filled)
    assert response.origin == pb.ANSWER_ORIGIN_EXTRACTIVE
    assert reasons(response.degradations) == {"GENERATION_INTERRUPTED"}
    assert response.quality.score <= 0.3
    assert len(filled.balancer.chats) == 2


async def test_a_streamed_answer_that_breaks_off_fails_with_its_partial_text(filled):
    filled.balancer.break_after, filled.balancer.break_error = 10, interruption()
    events = []

    async def read():
        request = pb.StreamQueryRequest(query=query())
        async for event in filled.rag.StreamQuery(request, metadata=ACME, timeout=20):
            events.append(event)

    error = await error_of(read())
    assert error.error_reason == "STREAM_INTERRUPTED"
    text = "".join(event.text_delta for event in events)
    assert text.startswith("Press the blue button to stop the machine [1].")
    failed = events[-1].failed
    assert (failed.partial_answer, failed.retryable) == (text, True)


async def test_without_the_cache_an_answer_is_worth_as_much(filled):
    filled.cache.fault = PeerUnavailable("cache", "away")
    response = await ask(filled)
    assert reasons(response.degradations) == {"CACHE_UNAVAILABLE"}
    assert response.quality.score == pytest.approx(score_of(response.quality))


async def test_a_lost_store_leaves_the_answer_given_before(filled):
    first = await ask(filled)
    async with lost_store(filled):
        again = await ask(filled)
        assert (again.origin, again.answer) == (pb.ANSWER_ORIGIN_CACHED, first.answer)
        assert reasons(again.degradations) == {"STORE_UNAVAILABLE", "SERVED_STALE"}
        assert again.quality.score == 0.5
        assert again.sentences == first.sentences
        assert [each.text for each in again.passages] == [each.text for each in first.passages]
        error = await error_of(ask(filled, query("Another question?")))
        assert (error.status_code, error.error_reason) == (
            StatusCode.UNAVAILABLE,
            "STORE_UNAVAILABLE",
        )
        assert error.retry_delay_seconds
        counted = (await page_of(filled)).labels("rag_answer_reuse_total", "outcome")
    assert counted == {"miss": 2, "unchecked": 1}


async def test_a_stale_answer_is_for_those_only_who_might_have_read_its_sources(filled):
    await ask(filled)
    async with lost_store(filled):
        other = [*ACME, ("x-pannier-user-id", "eve")]
        error = await error_of(filled.rag.Query(query(), metadata=other, timeout=20))
    assert error.error_reason == "STORE_UNAVAILABLE"


async def test_a_lost_store_leaves_the_model_where_that_is_allowed(filled):
    await ask(filled)
    filled.balancer.answer = "A machine has a button."
    async with lost_store(filled):
        request = query(OTHER, answer_policy=pb.ANSWER_POLICY_ALLOW_MODEL_KNOWLEDGE)
        response = await ask(filled, request)
    assert response.answer == "A machine has a button."
    assert reasons(response.degradations) == {"STORE_UNAVAILABLE", "UNGROUNDED"}
    assert response.quality.score <= 0.2
    assert not response.passages


async def test_a_slow_store_ends_a_question_of_a_conversation_before_its_time_is_up(filled):
    events = [event async for event in chat_call(filled, "")]
    known = events[0].started.conversation_id
    async with locked_store(filled, "conversation"):
        errors = await asyncio.gather(
            *(error_of(anext(aiter(chat_call(filled, each)))) for each in ("", known))
        )
    assert [(each.status_code, each.error_reason) for each in errors] == [
        (StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    ] * 2
    # Nothing of it has been left behind: the conversation can go on.
    events = [event async for event in chat_call(filled, known)]
    assert events[-1].answer.completed.answer == ANSWER


def chat_call(rag, conversation_id):
    request = pb.ChatRequest(conversation_id=conversation_id, query=query())
    caller = [*ACME, ("x-pannier-user-id", "ann")]
    return rag.rag.Chat(request, metadata=caller, timeout=8)


async def test_a_slow_store_leaves_the_answer_given_before(start_rag):
    rag = await start_rag(database_time_limit_seconds=1.0)
    await rag.ingest(DOCUMENTS)
    await rag.told()
    rag.balancer.answer = ANSWER
    first = await ask(rag)
    async with locked_store(rag, "collection"):
        again = await ask(rag)
    assert again.answer == first.answer
    assert reasons(again.degradations) == {"STORE_UNAVAILABLE", "SERVED_STALE"}


@pytest.mark.parametrize("table", ["collection", "document", "chunk"])
async def test_a_slow_store_leaves_time_for_the_lesser_answers(filled, table):
    """With the settings as they come, where one statement may take longer than the deadline."""
    first = await ask(filled)
    filled.balancer.answer = "A machine has a button."
    model_allowed, by_agent = (
        query(OTHER, answer_policy=pb.ANSWER_POLICY_ALLOW_MODEL_KNOWLEDGE, mode=mode)
        for mode in (pb.QUERY_MODE_RAG, pb.QUERY_MODE_AGENT)
    )
    async with locked_store(filled, table):
        again, alone, agent, refused, unfound = await asyncio.gather(
            ask(filled, seconds=8),
            ask(filled, model_allowed, seconds=8),
            ask(filled, by_agent, seconds=8),
            error_of(ask(filled, query("Another question?"), seconds=8)),
            error_of(
                filled.rag.Retrieve(
                    pb.RetrieveRequest(collection="docs", query=QUESTION), metadata=ACME, timeout=8
                )
            ),
        )
    # An arm may notice before the store is given up.
    possible = {"SEARCH_ARM_FAILED"}
    assert again.answer == first.answer
    assert reasons(again.degradations) - possible == {"STORE_UNAVAILABLE", "SERVED_STALE"}
    for each in (alone, agent):
        assert each.answer == "A machine has a button."
        assert reasons(each.degradations) - possible == {"STORE_UNAVAILABLE", "UNGROUNDED"}
    for error in (refused, unfound):
        assert (error.status_code, error.error_reason) == (
            StatusCode.UNAVAILABLE,
            "STORE_UNAVAILABLE",
        )
    filled.balancer.answer = ANSWER
    assert not (await ask(filled, query("How is the machine stopped?"))).degradations


async def test_statements_that_are_not_waited_for_give_their_connections_back(filled):
    request = pb.RetrieveRequest(collection="docs", query=QUESTION)
    async with locked_store(filled, "chunk"):
        # Together more than there are connections.
        for _ in range(2):
            calls = (filled.rag.Retrieve(request, metadata=ACME, timeout=8) for _ in range(10))
            errors = await asyncio.gather(*map(error_of, calls))
            assert {each.error_reason for each in errors} == {"STORE_UNAVAILABLE"}
        listed = await filled.corpus.ListCollections(LIST_COLLECTIONS, metadata=ACME, timeout=8)
    assert [each.name for each in listed.collections] == ["docs"]


@pytest.mark.parametrize("table", ["posting", "embedding"])
async def test_one_arm_alone_is_worth_less(start_rag, table):
    rag = await start_rag(database_time_limit_seconds=1.0)
    await rag.ingest(DOCUMENTS)
    rag.balancer.answer = ANSWER
    async with locked_store(rag, table):
        response = await ask(rag)
    assert "SEARCH_ARM_FAILED" in reasons(response.degradations)
    assert response.quality.score <= score_of(response.quality, 0.85) + 1e-9


async def test_a_web_search_that_is_wanted_and_cannot_be_made_is_said(filled):
    response = await ask(filled, query(web=pb.WEB_POLICY_ALWAYS))
    assert reasons(response.degradations) == {"WEB_SEARCH_UNAVAILABLE"}
    assert response.origin == pb.ANSWER_ORIGIN_GENERATED
    assert response.quality.score == pytest.approx(score_of(response.quality, 0.9))


async def test_a_rerank_that_is_wanted_and_cannot_be_made_is_said(filled):
    options = pb.RetrievalOptions(rerank=pb.RERANK_POLICY_ON)
    response = await ask(filled, query(retrieval=options))
    assert reasons(response.degradations) == {"RERANK_UNAVAILABLE"}
    assert response.quality.score == pytest.approx(score_of(response.quality, 0.95))


async def test_a_rerank_that_takes_too_long_is_said(start_rag):
    def prepare(balancer):
        speak = balancer.Chat

        async def slow(request, context):
            if request.HasField("top_logprob_count") and "fox" in request.messages[-1].content:
                await asyncio.Event().wait()
            async for each in speak(request, context):
                yield each

        balancer.Chat = slow
        balancer.first_tokens = lambda prompt: {"yes": -0.1, "no": -4.0}

    rag = await start_rag(
        prepare=prepare, rerank_chat_model="talker", rerank_time_limit_seconds=2.0
    )
    await rag.ingest(DOCUMENTS)
    rag.balancer.answer = ANSWER
    response = await ask(rag, query(retrieval=pb.RetrievalOptions(rerank=pb.RERANK_POLICY_ON)))
    assert reasons(response.degradations) == {"RERANK_BUDGET_EXCEEDED"}
    (detail,) = (each.detail for each in response.degradations)
    assert detail == "2 of 3 passages were judged in time"
    assert response.origin == pb.ANSWER_ORIGIN_GENERATED
    assert {each.document_id for each in response.passages} == set(DOCUMENTS)
    assert response.quality.score == pytest.approx(score_of(response.quality, 0.98))
    assert not rag.cache.semantic_requests


@pytest.mark.parametrize("said", ["It takes 5 seconds.", ""])
async def test_a_follow_up_that_nobody_rewords_is_answered_as_it_is(filled, said):
    filled.balancer.reply = lambda request: (
        said if "Reword the last question" in request.messages[0].content else None
    )
    history = [pb.ConversationTurn(question=QUESTION, answer=ANSWER)]
    response = await ask(filled, query("How long does it take?", history=history))
    assert reasons(response.degradations) == {"REWRITE_SKIPPED"}
    assert response.rewritten_query == ""
    assert response.passages[0].document_id == "button.md"
    assert response.origin == pb.ANSWER_ORIGIN_GENERATED
    assert response.quality.score == pytest.approx(score_of(response.quality, 0.97))
    assert not filled.cache.semantic_requests


@pytest.mark.parametrize("mode", [pb.QUERY_MODE_RAG, pb.QUERY_MODE_DEEP])
async def test_a_question_that_nobody_words_otherwise_is_searched_for_alone(filled, mode):
    filled.balancer.reply = lambda request: (
        "I would rather not." if request.HasField("format") else None
    )
    options = pb.RetrievalOptions(expansion=pb.EXPANSION_POLICY_MULTI_QUERY)
    response = await ask(filled, query(mode=mode, retrieval=options))
    assert reasons(response.degradations) == {"EXPANSION_SKIPPED"}
    assert not response.expansions
    assert response.answer == ANSWER
    assert response.quality.score == pytest.approx(score_of(response.quality, 0.97))
    assert not filled.cache.semantic_requests


def without_the_button(balancer):
    """Has a balancer fail to embed one document."""
    embed = balancer.Embed

    async def partly(request, context):
        if any("blue button" in text for text in request.texts):
            await abort(context, PeerUnavailable("ollama", "away"))
        return await embed(request, context)

    balancer.Embed = partly


async def test_documents_without_vectors_are_found_by_words_and_that_is_said(start_rag):
    rag = await start_rag(prepare=without_the_button)
    await rag.ingest({name: DOCUMENTS[name] for name in ("fox.md", "cheese.md")})
    results, _ = await rag.ingest({"button.md": DOCUMENTS["button.md"]})
    assert results["button.md"].pending_vector_count == 1
    rag.balancer.answer = ANSWER
    response = await ask(rag)
    assert reasons(response.degradations) == {"VECTORS_PENDING"}
    (button,) = (each for each in response.passages if each.document_id == "button.md")
    assert not button.score.HasField("vector_rank")
    assert button.score.keyword_rank == 1
    assert response.quality.score == pytest.approx(score_of(response.quality, 0.95))
    assert not rag.cache.semantic_requests


async def test_a_filter_that_chooses_what_has_no_vectors_yet_is_no_whole_search(start_rag):
    rag = await start_rag(prepare=without_the_button)
    await rag.ingest({f"{number}.md": f"The fox has {number} tails." for number in range(30)})
    await rag.ingest({"button.md": DOCUMENTS["button.md"]})
    request = pb.RetrieveRequest(collection="docs", query="How many tails has the fox?")
    whole = await rag.rag.Retrieve(request, metadata=ACME)
    assert reasons(whole.degradations) == set()
    request.query = QUESTION
    request.options.filter.document_ids.append("button.md")
    found = await rag.rag.Retrieve(request, metadata=ACME)
    assert [each.document_id for each in found.passages] == ["button.md"]
    assert reasons(found.degradations) == {"VECTORS_PENDING"}


def held_after(balancer, count):
    """Has the model stop speaking after so many words until the test ends."""

    class Gate:
        passed = 0

        async def wait(self):
            self.passed += 1
            if self.passed > count:
                await asyncio.Event().wait()

    balancer.hold = Gate()


async def test_a_short_deadline_ends_an_answer_with_what_there_is(filled):
    held_after(filled.balancer, 11)
    response = await ask(filled, seconds=2)
    assert response.origin == pb.ANSWER_ORIGIN_GENERATED
    assert response.answer.startswith("Press the blue button to stop the machine [1].")
    assert len(response.answer) < len(ANSWER)
    assert reasons(response.degradations) == {"DEADLINE_TRUNCATED"}
    assert response.finish_reason == generation_pb2.FINISH_REASON_UNSPECIFIED
    assert response.quality.score == pytest.approx(score_of(response.quality, 0.8))
    assert not filled.cache.semantic_requests


async def test_a_short_deadline_ends_a_stream_with_what_there_is(filled):
    held_after(filled.balancer, 2)
    events = await stream(filled, seconds=2)
    completed = events[-1].completed
    assert completed.answer == "".join(event.text_delta for event in events)
    assert completed.answer
    assert reasons(completed.degradations) == {"DEADLINE_TRUNCATED"}


async def test_a_prompt_that_the_backend_cuts_is_said(start_rag):
    rag = await start_rag(context_token_count=8192)
    text = "The pump of hall nine is serviced by the night crew in May. "
    await rag.ingest({f"doc{each}.md": f"# Pump {each}\n\n" + text * 14 for each in range(8)})
    rag.balancer.answer = "The pump of hall nine is serviced in May [1]."
    response = await ask(rag, query("Who services the pump of hall nine?"))
    # The peer says that it has read 100 tokens.
    assert "CONTEXT_TRUNCATED" in reasons(response.degradations)
    assert response.quality.score <= score_of(response.quality, 0.8) + 1e-9


async def test_a_hopeless_question_is_refused_without_a_model(filled):
    response = await ask(filled, query(FOREIGN))
    assert response.origin == pb.ANSWER_ORIGIN_REFUSED
    assert "do not hold an answer" in response.answer
    assert response.confidence.band == quality_pb2.CONFIDENCE_BAND_LOW
    assert response.passages
    assert not filled.balancer.chats
    assert response.quality.score < 0.35


async def test_a_hopeless_question_is_for_the_model_where_that_is_allowed(filled):
    filled.balancer.answer = "Nobody knows."
    request = query(FOREIGN, answer_policy=pb.ANSWER_POLICY_ALLOW_MODEL_KNOWLEDGE)
    response = await ask(filled, request)
    assert (response.answer, reasons(response.degradations)) == ("Nobody knows.", {"UNGROUNDED"})
    assert response.quality.score <= 0.2
    assert filled.balancer.chats[-1].messages[-1].content == FOREIGN


async def test_an_extractive_answer_asks_no_model(filled):
    request = query(answer_policy=pb.ANSWER_POLICY_EXTRACTIVE)
    response = await ask(filled, request)
    assert response.origin == pb.ANSWER_ORIGIN_EXTRACTIVE
    assert not response.degradations
    assert not filled.balancer.chats
    assert response.quality.groundedness == 1


async def test_json_is_asked_for_and_checked(filled):
    schema = {"type": "object", "properties": {"how": {"type": "string"}}, "required": ["how"]}
    form = generation_pb2.OutputFormat(json_schema=json.dumps(schema))
    filled.balancer.answer = '{"how": "Press the blue button to stop the machine", "sources": [1]}'
    response = await ask(filled, query(output_format=form))
    assert filled.balancer.chats[-1].format == form
    assert [each.marker for each in response.citations] == [1]
    assert [each.status for each in response.sentences] == [quality_pb2.SUPPORT_STATUS_SUPPORTED]
    assert not response.warnings
    filled.balancer.answer = '{"why": 5}'
    response = await ask(filled, query(OTHER, output_format=form))
    assert "has no property 'how'" in response.warnings[0]
    assert response.quality.score == 0


async def test_what_is_not_checked_of_a_schema_is_said(filled):
    schema = {"properties": {"how": {"pattern": "^Pull", "type": "string"}}}
    form = generation_pb2.OutputFormat(json_schema=json.dumps(schema))
    filled.balancer.answer = '{"how": "Press the blue button to stop the machine", "sources": [1]}'
    response = await ask(filled, query(output_format=form))
    assert list(response.warnings) == ["Of the schema these parts were not checked: pattern."]
    again = await ask(filled, query(output_format=form))
    assert again.warnings == response.warnings


async def test_a_schema_without_end_holds_up_nobody(filled):
    form = generation_pb2.OutputFormat(json_schema='{"allOf": [{"$ref": "#"}, {"$ref": "#"}]}')
    filled.balancer.answer = '{"how": "Press the blue button", "sources": [1]}'
    response = await ask(filled, query(output_format=form))
    assert "refers to itself too often" in response.warnings[0]
    assert response.quality.score == 0


async def test_json_that_no_model_can_give_is_an_error(filled):
    filled.balancer.fault = RelayedError(
        "all failed", code=StatusCode.UNAVAILABLE, reason="ALL_ATTEMPTS_FAILED"
    )
    form = generation_pb2.OutputFormat(json=True)
    error = await error_of(ask(filled, query(output_format=form)))
    assert error.error_reason == "ALL_ATTEMPTS_FAILED"


async def test_a_link_that_no_source_holds_never_reaches_the_caller(filled):
    filled.balancer.answer = "Press the blue button [1]. See https://evil.example/?q=secret now."
    events = await stream(filled)
    text = "".join(event.text_delta for event in events)
    assert "evil.example" not in text
    assert text == events[-1].completed.answer
    assert any("links" in each for each in events[-1].completed.warnings)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"history": [pb.ConversationTurn(question="a", answer="b")] * 101}, "history"),
        ({"history": [pb.ConversationTurn(question=" ")]}, "history[0].question"),
        (
            {"history": [pb.ConversationTurn(question="a", answer="b" * 65_537)]},
            "history[0].answer",
        ),
        ({"answer_policy": 99}, "answer_policy"),
        ({"web": 99}, "web"),
        ({"output_format": generation_pb2.OutputFormat()}, "output_format"),
        ({"output_format": generation_pb2.OutputFormat(json=False)}, "output_format.json"),
        (
            {"output_format": generation_pb2.OutputFormat(json_schema="[1]")},
            "output_format.json_schema",
        ),
        (
            {
                "output_format": generation_pb2.OutputFormat(json=True),
                "answer_policy": pb.ANSWER_POLICY_EXTRACTIVE,
            },
            "output_format",
        ),
    ],
)
async def test_a_bad_field_is_named(rag, fields, field):
    error = await error_of(ask(rag, query(**fields)))
    assert [each.field for each in error.violations] == [field]
