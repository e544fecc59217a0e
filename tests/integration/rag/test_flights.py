"""Of all who ask the same at the same time one has it generated; the others get what it gets."""

import asyncio
import time

import pytest

from pannier.balancer.v1 import balancer_service_pb2 as balancer
from pannier.common.v1 import generation_pb2
from pannier.rag.v1 import rag_service_pb2 as pb
from services.common.errors import RelayedError, StatusCode
from services.rag.background import BACKGROUND_KINDS
from services.rag.coalesce import Coalescer
from tests.kit.questions import ACME, ANSWER, DOCUMENTS, query
from tests.kit.rpc import error_of


def ask(rag, request=None, *, timeout=20):
    return rag.rag.Query(request or query(), metadata=ACME, timeout=timeout)


class Reader:
    """Reads a stream while the test goes on."""

    def __init__(self, rag, request=None):
        self.events = []
        self._news = asyncio.Condition()
        self.call = rag.rag.StreamQuery(
            pb.StreamQueryRequest(query=request or query()), metadata=ACME, timeout=20
        )
        self.task = asyncio.create_task(self._read())

    @property
    def text(self):
        return "".join(event.text_delta for event in self.events)

    async def _read(self):
        async for event in self.call:
            self.events.append(event)
            async with self._news:
                self._news.notify_all()

    async def has_text(self):
        async with asyncio.timeout(10), self._news:
            await self._news.wait_for(lambda: self.text)

    async def completed(self):
        async with asyncio.timeout(10):
            await self.task
        return self.events[-1].completed


async def followed(rag):
    async with asyncio.timeout(10):
        await rag.cache.followed.wait()
    rag.cache.followed.clear()


async def fill_ends(rag):
    async with asyncio.timeout(10):
        return await rag.cache.fills.get()


def outcomes(response):
    return {stage.name: stage.cache_outcome for stage in response.profile.stages}


async def test_two_who_ask_the_same_at_once_cost_one_generation(filled):
    filled.balancer.hold = asyncio.Event()
    first = Reader(filled)
    await first.has_text()
    second = asyncio.ensure_future(ask(filled))
    await followed(filled)
    filled.balancer.hold.set()
    response = await second
    completed = await first.completed()
    assert response.answer == completed.answer == filled.balancer.answer
    assert response.citations == completed.citations
    assert (completed.origin, response.origin) == (
        pb.ANSWER_ORIGIN_GENERATED,
        pb.ANSWER_ORIGIN_CACHED,
    )
    assert outcomes(response)["inference_lookup"] == "hit_coalesced"
    assert len(filled.balancer.chats) == 1
    assert filled.cache.calls["StoreSemantic"] == 1, "each has kept the one answer"


@pytest.mark.parametrize("mode", [pb.QUERY_MODE_RAG, pb.QUERY_MODE_DEEP])
async def test_an_answer_of_little_worth_is_for_those_who_wait_for_it_and_nobody_else(filled, mode):
    filled.balancer.answer = "Press the blue button to stop the machine [1]. It takes 50 hours [1]."
    filled.balancer.hold = asyncio.Event()
    first = Reader(filled, query(mode=mode))
    await first.has_text()
    waiting = asyncio.ensure_future(ask(filled, query(mode=mode)))
    await followed(filled)
    reader = Reader(filled, query(mode=mode))
    await reader.has_text()
    filled.balancer.hold.set()
    completed = [await first.completed(), await waiting, await reader.completed()]
    assert {each.answer for each in completed} == {filled.balancer.answer}
    assert not [each for response in completed for each in response.degradations]
    assert len(filled.balancer.chats) == 1
    assert await fill_ends(filled) == "hand_over"
    again = await ask(filled, query(mode=mode))
    assert again.origin == pb.ANSWER_ORIGIN_GENERATED
    assert len(filled.balancer.chats) == 2


async def test_the_vector_of_a_question_is_computed_once_for_all_who_ask_it(filled, monkeypatch):
    waiting_keys, run = [], Coalescer.run

    async def noted_run(self, key, compute):
        waiting_keys.append(key)
        return await run(self, key, compute)

    monkeypatch.setattr(Coalescer, "run", noted_run)
    filled.balancer.hold_embedding = asyncio.Event()
    before = filled.balancer.tenants["acme"]
    request = pb.RetrieveRequest(collection="docs", query="A new question about cheese?")
    calls = [
        asyncio.ensure_future(filled.rag.Retrieve(request, metadata=ACME, timeout=20))
        for _ in range(5)
    ]
    async with asyncio.timeout(10):
        while len(waiting_keys) < len(calls) or filled.balancer.tenants["acme"] == before:
            await asyncio.sleep(0.001)
    calls[0].cancel()
    filled.balancer.hold_embedding.set()
    for call in calls[1:]:
        assert (await call).passages[0].document_id == "cheese.md"
    assert filled.balancer.embedded["A new question about cheese?"] == 1


async def test_who_comes_later_is_shown_the_text_as_it_comes(filled):
    filled.balancer.hold = asyncio.Event()
    first, second = Reader(filled), None
    await first.has_text()
    second = Reader(filled)
    await second.has_text()
    assert second.text == first.text == "Press "
    assert not first.task.done()
    filled.balancer.hold.set()
    assert (await second.completed()).answer == filled.balancer.answer
    assert second.text == filled.balancer.answer
    assert len(filled.balancer.chats) == 1


async def test_when_the_first_one_leaves_the_next_one_takes_over(filled):
    filled.balancer.hold = asyncio.Event()
    first = Reader(filled)
    await first.has_text()
    second = asyncio.ensure_future(ask(filled))
    await followed(filled)
    first.call.cancel()
    assert await fill_ends(filled) == "cut"
    filled.balancer.hold.set()
    response = await second
    assert (response.origin, response.answer) == (
        pb.ANSWER_ORIGIN_GENERATED,
        filled.balancer.answer,
    )
    assert not response.degradations


async def test_a_text_that_was_shown_goes_on_where_it_comes_out_the_same(filled):
    filled.balancer.hold = asyncio.Event()
    first = Reader(filled)
    await first.has_text()
    second = Reader(filled)
    await second.has_text()
    first.call.cancel()
    assert await fill_ends(filled) == "cut"
    filled.balancer.hold.set()
    completed = await second.completed()
    assert second.text == completed.answer == filled.balancer.answer
    assert completed.origin == pb.ANSWER_ORIGIN_GENERATED
    assert len(filled.balancer.chats) == 2
    assert await fill_ends(filled) == "commit"


async def test_when_the_first_one_leaves_one_of_the_others_takes_over_for_all(filled):
    filled.balancer.hold = asyncio.Event()
    first = Reader(filled)
    await first.has_text()
    others = [Reader(filled) for _ in range(5)]
    for other in others:
        await other.has_text()
    first.call.cancel()
    assert await fill_ends(filled) == "cut"
    while len(filled.balancer.chats) < 2:
        await asyncio.sleep(0.005)
    filled.balancer.hold.set()
    for other in others:
        assert (await other.completed()).answer == other.text == filled.balancer.answer
    assert len(filled.balancer.chats) == 2


async def test_a_text_that_comes_out_otherwise_is_told_to_be_broken(filled):
    filled.balancer.hold = asyncio.Event()
    first = Reader(filled)
    await first.has_text()
    second = Reader(filled)
    await second.has_text()
    filled.balancer.answer = "Another text begins otherwise [1]."
    first.call.cancel()
    error = await error_of(second.task)
    assert (error.status_code, error.error_reason) == (StatusCode.ABORTED, "STREAM_INTERRUPTED")
    assert error.metadata["emitted_character_count"] == str(len("Press "))
    assert second.text == "Press "
    assert not any(event.HasField("completed") for event in second.events)
    filled.balancer.hold.set()
    assert (await ask(filled)).answer == filled.balancer.answer


async def test_a_chance_text_that_was_shown_is_not_tried_again(filled):
    request = query(sampling=generation_pb2.SamplingOptions(temperature=1.0))
    filled.balancer.hold = asyncio.Event()
    first = Reader(filled, request)
    await first.has_text()
    second = Reader(filled, request)
    await second.has_text()
    first.call.cancel()
    error = await error_of(second.task)
    assert error.error_reason == "STREAM_INTERRUPTED"
    assert len(filled.balancer.chats) == 1


async def test_what_a_model_refuses_is_refused_at_once_the_next_time(filled):
    filled.balancer.fault = RelayedError(
        "The input is too long.",
        code=StatusCode.INVALID_ARGUMENT,
        reason="BACKEND_REJECTED_REQUEST",
        metadata={"model": "talker:latest", "backend_message": "too long"},
    )
    request = query(mode=pb.QUERY_MODE_DIRECT)
    first = await error_of(ask(filled, request))
    assert await fill_ends(filled) == "abort"
    before = filled.balancer.tenants["acme"]
    second = await error_of(ask(filled, request))
    assert filled.balancer.tenants["acme"] == before
    assert (second.status_code, second.error_reason) == (first.status_code, first.error_reason)
    assert second.message == first.message


async def test_a_model_that_is_gone_leaves_the_sources_the_next_time_too(filled):
    filled.balancer.fault = RelayedError(
        "No backend has it.", code=StatusCode.NOT_FOUND, reason="MODEL_NOT_FOUND"
    )
    first = await ask(filled)
    assert await fill_ends(filled) == "abort"
    second = await ask(filled)
    assert outcomes(second)["inference_lookup"] == "hit_negative"
    assert (first.origin, second.origin) == (pb.ANSWER_ORIGIN_EXTRACTIVE,) * 2
    assert second.answer == first.answer
    assert second.degradations == first.degradations


async def test_a_deadline_says_nothing_to_others(filled):
    await ask(filled, query("What is cheese made from?"))
    await fill_ends(filled)
    filled.balancer.hold = asyncio.Event()
    response = await ask(filled, timeout=2)
    assert response.origin == pb.ANSWER_ORIGIN_EXTRACTIVE
    assert await fill_ends(filled) == "cut"
    filled.balancer.hold.set()
    assert (await ask(filled)).origin == pb.ANSWER_ORIGIN_GENERATED


async def test_a_wait_that_takes_too_long_ends_in_a_generation(start_rag):
    rag = await start_rag(cache_wait_limit_seconds=0.2)
    await rag.ingest(DOCUMENTS)
    await rag.told()
    rag.balancer.hold = asyncio.Event()
    first = Reader(rag)
    await first.has_text()
    second = asyncio.ensure_future(ask(rag))
    await followed(rag)
    while len(rag.balancer.chats) < 2:
        await asyncio.sleep(0.005)
    rag.balancer.hold.set()
    assert (await second).origin == pb.ANSWER_ORIGIN_GENERATED
    assert (await first.completed()).origin == pb.ANSWER_ORIGIN_GENERATED


async def test_an_answer_about_to_expire_is_computed_anew_behind_all_others(filled):
    await ask(filled)
    assert await fill_ends(filled) == "commit"
    filled.cache.answered.clear()
    filled.cache.wants_refresh = True
    filled.balancer.hold = asyncio.Event()
    response = await ask(filled)
    assert response.origin == pb.ANSWER_ORIGIN_CACHED
    assert filled.cache.fills.empty()
    filled.balancer.hold.set()
    assert await fill_ends(filled) == "commit"
    first, second = filled.balancer.chats
    assert second.routing.priority == balancer.PRIORITY_BATCH
    assert second.messages == first.messages


async def test_an_answer_of_less_worth_does_not_take_the_place_of_one_about_to_expire(filled):
    first = await ask(filled)
    assert await fill_ends(filled) == "commit"
    filled.cache.answered.clear()
    filled.cache.wants_refresh = True
    filled.balancer.answer = "Press the blue button to stop the machine [1]. It takes 50 hours [1]."
    assert (await ask(filled)).origin == pb.ANSWER_ORIGIN_CACHED
    assert await fill_ends(filled) == "cut"
    assert len(filled.balancer.chats) == 2
    filled.cache.wants_refresh = False
    again = await ask(filled)
    assert (again.origin, again.answer) == (pb.ANSWER_ORIGIN_CACHED, first.answer)


async def test_an_answer_to_a_cut_prompt_does_not_take_the_place_of_one_about_to_expire(start_rag):
    rag = await start_rag(context_token_count=8192)
    text = "The pump of hall nine is serviced by the night crew in May. "
    others = {f"doc{each}.md": f"# Pump {each}\n\n" + text * 14 for each in range(8)}
    await rag.ingest(DOCUMENTS | others)
    await rag.told()
    rag.balancer.answer = ANSWER
    rag.balancer.prompt_token_count = 2000
    assert not (await ask(rag)).degradations
    assert await fill_ends(rag) == "commit"
    rag.cache.answered.clear()
    rag.cache.wants_refresh = True
    rag.balancer.prompt_token_count = 100
    assert (await ask(rag)).origin == pb.ANSWER_ORIGIN_CACHED
    assert await fill_ends(rag) == "cut"
    assert len(rag.balancer.chats) == 2


async def test_a_refresh_without_room_gives_its_lease_back(filled, monkeypatch):
    monkeypatch.setitem(BACKGROUND_KINDS, "refresh", 0)
    await ask(filled)
    assert await fill_ends(filled) == "commit"
    filled.cache.answered.clear()
    filled.cache.wants_refresh = True
    assert (await ask(filled)).origin == pb.ANSWER_ORIGIN_CACHED
    assert await fill_ends(filled) == "cut"
    assert len(filled.balancer.chats) == 1


async def test_a_caller_that_leaves_a_cached_answer_gives_the_lease_to_refresh_it_back(filled):
    await ask(filled)
    assert await fill_ends(filled) == "commit"
    filled.cache.answered.clear()
    filled.cache.wants_refresh = True
    filled.cache.hold_completion = asyncio.Event()
    reader = Reader(filled)
    await reader.has_text()
    reader.task.cancel()
    reader.call.cancel()
    assert await fill_ends(filled) == "cut"
    assert len(filled.balancer.chats) == 1


@pytest.mark.parametrize("policy", [pb.CACHE_POLICY_USE, pb.CACHE_POLICY_REFRESH])
@pytest.mark.parametrize("mode", [pb.QUERY_MODE_RAG, pb.QUERY_MODE_DIRECT])
async def test_what_is_invalidated_during_a_generation_is_newer_than_its_answer(
    filled, mode, policy
):
    filled.balancer.hold = asyncio.Event()
    sampling = generation_pb2.SamplingOptions(temperature=0)
    request = query(
        mode=mode,
        collection="docs" if mode == pb.QUERY_MODE_RAG else "",
        cache_policy=policy,
        sampling=sampling,
    )
    asking = asyncio.ensure_future(ask(filled, request))
    async with asyncio.timeout(10):
        while not filled.balancer.chats:
            await asyncio.sleep(0.005)
    before = filled.cache.now_ns
    filled.balancer.hold.set()
    await asking
    (control,) = filled.cache.inference_controls
    assert 1 <= control.basis_time.ToNanoseconds() <= before


@pytest.mark.parametrize(("document_count", "is_kept"), [(15, True), (16, False)])
async def test_an_answer_from_more_documents_than_can_be_noted_is_not_kept(
    rag, document_count, is_kept
):
    names = [f"m{number:02}.txt" for number in range(document_count)]
    await rag.ingest({name: f"Machine {name} stops by its button." for name in names})
    await rag.told()
    rag.balancer.answer = "The machine stops by its button [1]."
    retrieval = pb.RetrievalOptions(passage_count=50)
    sampling = generation_pb2.SamplingOptions(context_token_count=32768)
    request = query("Which machine stops by its button?", retrieval=retrieval, sampling=sampling)
    response = await ask(rag, request)
    assert len({each.document_id for each in response.passages}) == document_count
    assert response.origin == pb.ANSWER_ORIGIN_GENERATED
    assert not response.degradations
    kept = {name: bool(rag.cache.calls[name]) for name in ("FillInference", "StoreSemantic")}
    assert kept == dict.fromkeys(kept, is_kept)
    assert not rag.cache.calls["StoreInference"]


async def test_a_lost_lease_harms_no_answer(filled):
    filled.balancer.hold = asyncio.Event()
    reader = Reader(filled)
    await reader.has_text()
    filled.cache.lose_leases()
    filled.balancer.hold.set()
    completed = await reader.completed()
    assert completed.answer == filled.balancer.answer
    assert not completed.degradations


async def test_another_version_of_the_model_fills_nothing_under_the_listed_name(start_rag):
    def change(fleet):
        name, _, capability = fleet.models[1]
        fleet.models[1] = (name, "f" * 64, capability)

    rag = await start_rag(prepare=change)
    await rag.ingest(DOCUMENTS)
    await rag.told()
    rag.balancer.answer = ANSWER
    await ask(rag)
    assert await fill_ends(rag) == "cut"
    assert rag.cache.calls["StoreInference"] == 1


async def test_a_cache_that_freezes_is_not_waited_for_as_another_caller_is(start_rag):
    rag = await start_rag(cache_time_limit_seconds=0.1)
    await rag.ingest(DOCUMENTS)
    await rag.told()
    rag.cache.hold = asyncio.Event()
    started = time.monotonic()
    response = await ask(rag, query(mode=pb.QUERY_MODE_DIRECT))
    assert response.answer == rag.balancer.answer
    assert time.monotonic() - started < 3
    reader = Reader(rag, query("Another one?", mode=pb.QUERY_MODE_DIRECT))
    assert (await reader.completed()).answer == rag.balancer.answer
    assert time.monotonic() - started < 6


async def test_a_cache_that_freezes_in_the_middle_of_a_text_does_not_freeze_the_text(start_rag):
    rag = await start_rag(cache_time_limit_seconds=0.1)
    await rag.ingest(DOCUMENTS)
    await rag.told()
    rag.balancer.hold = asyncio.Event()
    first = Reader(rag)
    await first.has_text()
    second = Reader(rag)
    await second.has_text()
    rag.cache.freeze_tails()
    rag.cache.hold = asyncio.Event()
    rag.balancer.hold.set()
    assert (await second.completed()).answer == rag.balancer.answer
    assert second.text == rag.balancer.answer


async def test_work_that_nobody_waits_for_ends_with_the_service(start_rag):
    rag = await start_rag()
    await rag.ingest(DOCUMENTS)
    await rag.told()
    await ask(rag)
    await fill_ends(rag)
    rag.cache.answered.clear()
    rag.cache.wants_refresh = True
    while not rag.balancer.chat_ended.empty():
        rag.balancer.chat_ended.get_nowait()
    rag.balancer.hold = asyncio.Event()
    await ask(rag)
    while len(rag.balancer.chats) < 2:
        await asyncio.sleep(0.005)
    await rag.stop()
    async with asyncio.timeout(30):
        await rag.balancer.chat_ended.get()
