"""Why a request goes where it goes."""

import asyncio

import pytest

from pannier.balancer.v1 import balancer_service_pb2 as pb
from services.common.errors import StatusCode
from services.standin.core.profile import ModelSpec
from tests.kit.balancer import opened_admin
from tests.kit.rpc import error_of
from tests.kit.standin import CHAT_MODEL, EMBEDDING_MODEL, running_standins

TALKER = "talker:latest"
MODELS = (ModelSpec(name=TALKER, size_bytes=1000),)
MESSAGES = [{"role": "CHAT_ROLE_USER", "content": "Say something."}]


def story(model=TALKER, token_count=3):
    return pb.GenerateRequest(
        model=model,
        prompt="Say something.",
        sampling={"max_output_token_count": token_count},
    )


async def tell(balancer, request):
    return [event async for event in balancer.stub.Generate(request)]


async def explain(balancer, **subject):
    return (await balancer.stub.Explain(pb.ExplainRequest(**subject))).decision


def cost_adds_up(candidate):
    terms = (
        candidate.drain_seconds
        + candidate.load_seconds
        + candidate.prefill_seconds
        + candidate.decode_seconds
        + candidate.risk_seconds
    )
    return candidate.cost_seconds == pytest.approx(terms)


@pytest.fixture
async def pair(run_balancer):
    async with running_standins(2, models=MODELS, tokens_per_second=100.0) as standins:
        yield await run_balancer(*(each.url for each in standins)), *standins


@pytest.mark.parametrize(
    ("subject", "model"),
    [
        ({"chat": {"model": CHAT_MODEL, "messages": MESSAGES}}, CHAT_MODEL),
        ({"generate": {"model": "talker", "prompt": "Say something."}}, TALKER),
        ({"embed": {"model": EMBEDDING_MODEL, "texts": ["a", "b"]}}, EMBEDDING_MODEL),
    ],
)
async def test_a_hypothetical_request_is_planned_for_and_changes_nothing(pair, subject, model):
    balancer, first, second = pair
    before = await balancer.stats()
    spans = len(balancer.spans.exporter.get_finished_spans())
    decisions = [await explain(balancer, **subject) for _ in range(3)]
    for decision in decisions:
        assert decision.decision_id == ""
        assert decision.model == model
        # Nothing is loaded yet.
        assert decision.outcome == pb.ROUTING_OUTCOME_LOADING
        assert {each.backend_id for each in decision.candidates} == {
            first.backend_id,
            second.backend_id,
        }
        assert all(cost_adds_up(each) for each in decision.candidates)
        assert decision.candidates[0].load_seconds > 0
        assert decision.prompt_token_count > 0
    # It took nobody's turn.
    assert len({each.backend_id for each in decisions}) == 1
    after = await balancer.stats()
    assert after == before
    assert balancer.value("balancer_model_loads_total", cause="demand") == 0
    names = [each.name for each in balancer.spans.exporter.get_finished_spans()[spans:]]
    assert all("BalancerService" in each for each in names), names
    for standin in (first, second):
        assert not await standin.requests("/api/generate")


async def test_vectors_come_with_the_decisions_that_made_them(pair):
    balancer, first, second = pair
    for backend_id in (first.backend_id, second.backend_id):
        async with opened_admin(balancer.grpc_port) as admin:
            await admin.PreloadModel(
                pb.PreloadModelRequest(model=EMBEDDING_MODEL, backend_id=backend_id)
            )
    texts = [f"text number {number}" for number in range(400)]
    response = await balancer.stub.Embed(pb.EmbedRequest(model=EMBEDDING_MODEL, texts=texts))
    decisions = [await explain(balancer, decision_id=each) for each in response.decision_ids]
    assert len({each.decision_id for each in decisions}) == len(decisions) >= 2
    assert {each.backend_id for each in decisions} == set(response.backend_ids)
    for decision in decisions:
        assert decision.model == EMBEDDING_MODEL
        assert decision.outcome == pb.ROUTING_OUTCOME_DISPATCHED
        assert all(cost_adds_up(each) for each in decision.candidates)


async def test_what_is_predicted_is_what_happens(pair):
    balancer, *_ = pair
    await tell(balancer, story())
    decision = await explain(balancer, generate=story())
    events = await tell(balancer, story())
    assert decision.outcome == pb.ROUTING_OUTCOME_DISPATCHED
    assert events[0].started.backend_id == decision.backend_id
    assert events[0].started.routing_reason == decision.reason
    chosen, other = decision.candidates
    assert chosen.backend_id == decision.backend_id
    assert chosen.residency == pb.MODEL_RESIDENCY_WARM
    assert other.residency == pb.MODEL_RESIDENCY_INSTALLED
    assert chosen.cost_seconds < other.cost_seconds
    assert decision.candidates[0].drain_seconds == chosen.load_seconds == 0


async def test_a_decision_made_is_explained_as_it_was_made(pair):
    balancer, *_ = pair
    await tell(balancer, story())
    started = (await tell(balancer, story()))[0].started
    async with opened_admin(balancer.grpc_port) as admin:
        # What has happened since changes nothing.
        await admin.DrainBackend(pb.DrainBackendRequest(backend_id=started.backend_id))
        decision = await explain(balancer, decision_id=started.decision_id)
    assert decision.decision_id == started.decision_id
    assert decision.outcome == pb.ROUTING_OUTCOME_DISPATCHED
    assert decision.backend_id == started.backend_id
    assert decision.reason == started.routing_reason
    assert decision.model == TALKER
    assert decision.decide_time.ToSeconds() > 1e9
    assert all(cost_adds_up(each) for each in decision.candidates)
    now = await explain(balancer, generate=story())
    exclusions = {each.backend_id: each.exclusion for each in now.candidates}
    assert exclusions[started.backend_id] == pb.EXCLUSION_REASON_DRAINED


async def test_those_that_wait_come_first(pair):
    balancer, *_ = pair
    calls = [balancer.stub.Generate(story(token_count=2000)) for _ in range(6)]
    readings = [asyncio.create_task(error_of(drain(call))) for call in calls]
    async with asyncio.timeout(10):
        while True:
            stats = await balancer.stats()
            waiting = sum(each.waiting_count for each in stats.fleet.queues)
            if (waiting, stats.fleet.in_flight_count) == (4, 6):
                break
            await asyncio.sleep(0.02)
    decision = await explain(balancer, generate=story())
    assert decision.outcome == pb.ROUTING_OUTCOME_HELD
    assert decision.queue_position == 4
    assert decision.predicted_first_token.ToMilliseconds() > 0
    assert all(each.in_flight_count == each.slot_count == 1 for each in decision.candidates)
    urgent = story()
    urgent.routing.priority = pb.PRIORITY_SYSTEM
    assert (await explain(balancer, generate=urgent)).queue_position == 0
    for call in calls:
        call.cancel()
    await asyncio.wait(readings)


async def drain(call):
    async for _ in call:
        pass


async def test_what_cannot_be_served_is_explained_too(pair):
    balancer, first, second = pair
    async with opened_admin(balancer.grpc_port) as admin:
        for each in (first, second):
            await admin.DrainBackend(pb.DrainBackendRequest(backend_id=each.backend_id))
    decision = await explain(balancer, generate=story())
    assert decision.outcome == pb.ROUTING_OUTCOME_REFUSED
    assert decision.backend_id == ""
    assert {each.exclusion for each in decision.candidates} == {pb.EXCLUSION_REASON_DRAINED}


async def test_faults_are_said_as_those_of_the_request_itself(pair):
    balancer, *_ = pair
    cases = [
        ({}, "INVALID_FIELD", StatusCode.INVALID_ARGUMENT),
        ({"embed": {"model": EMBEDDING_MODEL}}, "INVALID_FIELD", StatusCode.INVALID_ARGUMENT),
        (
            {"generate": {"model": "nothing", "prompt": "a"}},
            "MODEL_NOT_FOUND",
            StatusCode.NOT_FOUND,
        ),
        (
            {"embed": {"model": TALKER, "texts": ["a"]}},
            "MODEL_CAPABILITY_MISSING",
            StatusCode.FAILED_PRECONDITION,
        ),
        ({"decision_id": "nobody-1"}, "DECISION_NOT_FOUND", StatusCode.NOT_FOUND),
    ]
    for subject, reason, code in cases:
        error = await error_of(explain(balancer, **subject))
        assert (error.error_reason, error.status_code) == (reason, code)
    error = await error_of(explain(balancer, embed={"model": EMBEDDING_MODEL}))
    assert error.metadata["field"] == "embed.texts"
