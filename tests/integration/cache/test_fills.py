"""Answers handed over while they are generated: followed at once, kept only when complete."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from pannier.cache.v1 import cache_service_pb2 as pb
from pannier.cache.v1 import control_pb2
from pannier.common.v1 import generation_pb2
from services.cache import fill_writer
from services.cache.core.errors import LeaseLost
from services.cache.core.tags import EVERYTHING, document_tag
from services.cache.recorder import FlightEvent
from services.common.errors import InvalidRequest, StreamProtocolViolation
from tests.kit.cache_replicas import (
    Replica,
    answer,
    eventually,
    fill_messages,
    question,
    running_replica,
)
from tests.kit.redis import RedisServer

MISS, LOCAL, SHARED, COALESCED, NEGATIVE, WAITED = (
    pb.LOOKUP_OUTCOME_MISS,
    pb.LOOKUP_OUTCOME_HIT_LOCAL,
    pb.LOOKUP_OUTCOME_HIT_SHARED,
    pb.LOOKUP_OUTCOME_HIT_COALESCED,
    pb.LOOKUP_OUTCOME_HIT_NEGATIVE,
    pb.LOOKUP_OUTCOME_MISS_WAITED,
)
WORDS = [f"word{number} " for number in range(40)]
Event = pb.FillInferenceRequest


@pytest.fixture
async def replicas(redis_server: RedisServer) -> AsyncIterator[tuple[Replica, Replica]]:
    """Two replicas in front of an empty Redis; nothing may be left when the callers are done."""
    async with running_replica(redis_server.url) as one, running_replica(redis_server.url) as two:
        yield one, two
        await eventually(lambda: one.is_idle and two.is_idle)


class Generation:
    """A fill whose messages are sent when the test says so."""

    def __init__(
        self, replica: Replica, token: str, control: control_pb2.StoreControl | None = None
    ) -> None:
        self._messages: asyncio.Queue[Event | None] = asyncio.Queue()
        opening = pb.FillOpening(key=question(), lease_token=token, control=control)
        self.send(Event(open=opening))
        self.call = asyncio.create_task(replica.fill(self._read()))

    def send(self, *messages: Event) -> None:
        for message in messages:
            self._messages.put_nowait(message)

    def generate(self, *texts: str) -> None:
        self.send(*(Event(text_delta=text) for text in texts))

    def think(self, *texts: str) -> None:
        self.send(*(Event(thinking_delta=text) for text in texts))

    async def commit(self, inference: pb.Inference | None = None) -> pb.FillInferenceResponse:
        self.send(Event(commit=inference or answer("")))
        return await self.call

    async def hand_over(self) -> pb.FillInferenceResponse:
        self.send(Event(hand_over=answer("")))
        return await self.call

    async def abort(self, kind: int = 0, message: str = "") -> pb.FillInferenceResponse:
        self.send(Event(abort=pb.Failure(kind=kind, message=message)))
        return await self.call

    async def end(self) -> None:
        self._messages.put_nowait(None)
        await asyncio.wait([self.call])

    async def _read(self) -> AsyncIterator[Event]:
        while (message := await self._messages.get()) is not None:
            yield message


class Follower:
    """A caller who reads an answer as it comes."""

    def __init__(self, replica: Replica, *, pause_seconds: float = 0.0, **wish: float) -> None:
        self.events: list[pb.StreamInferenceResponse] = []
        self.times: list[float] = []
        self._pause_seconds = pause_seconds
        self.call = asyncio.create_task(self._follow(replica, wish))

    @property
    def started(self) -> pb.LookupInferenceResponse:
        return self.events[0].started

    @property
    def text(self) -> str:
        return "".join(event.text_delta for event in self.events)

    @property
    def thinking(self) -> str:
        return "".join(event.thinking_delta for event in self.events)

    @property
    def last(self) -> pb.StreamInferenceResponse:
        return self.events[-1]

    async def _follow(self, replica: Replica, wish: dict[str, float]) -> None:
        async for event in replica.stream(**wish):
            self.events.append(event)
            self.times.append(time.monotonic())
            await asyncio.sleep(self._pause_seconds)


def kinds(follower: Follower) -> list[str]:
    """Returns the kinds of a follower's events, deltas of one kind together."""
    found: list[str] = []
    for event in follower.events:
        kind = event.WhichOneof("event")
        if not (found and found[-1] == kind):
            found.append(kind)
    return found


async def lease_of(replica: Replica) -> str:
    found = await replica.look_up()
    assert found.outcome == MISS
    return found.lease.token


async def all_waiting(count: int, *replicas: Replica) -> None:
    await eventually(
        lambda: sum(each.levels.recorder.flights.waiting_count for each in replicas) == count
    )


async def test_a_generation_is_followed_on_all_replicas_and_then_kept(replicas) -> None:
    one, two = replicas
    followers = [Follower(replica) for replica in (one, two) for _ in range(20)]
    token = await lease_of_followers(followers)
    generation = Generation(one, token)
    waiting = [asyncio.create_task(replica.look_up()) for replica in replicas]
    generation.think("let me ", "see")
    generation.generate(*WORDS[:20])
    await eventually(lambda: all(each.text == "".join(WORDS[:20]) for each in followers))
    late = [Follower(one), Follower(two)]
    await eventually(lambda: all(each.text == "".join(WORDS[:20]) for each in late))
    for word in WORDS[20:]:
        generation.generate(word)
        await asyncio.sleep(0.002)
    committed_at = time.monotonic()
    assert (await generation.commit()).stored
    followers += late
    await asyncio.wait([each.call for each in followers] + waiting)
    whole = answer("".join(WORDS), thinking="let me see")
    for follower in followers:
        assert kinds(follower) == ["started", "thinking_delta", "text_delta", "completed"]
        assert follower.started.outcome == COALESCED
        assert (follower.text, follower.thinking) == (whole.text, whole.thinking)
        assert follower.last.completed == whole
        assert follower.times[0] < committed_at
    for waiter in waiting:
        assert waiter.result().outcome == COALESCED
        assert waiter.result().inference == whole
    for replica in replicas:
        found = await replica.look_up()
        assert found.inference == whole
        replay = Follower(replica)
        await replay.call
        assert kinds(replay) == ["started", "thinking_delta", "text_delta", "completed"]
        assert replay.started.outcome == LOCAL
        assert replay.text == whole.text


async def test_an_answer_for_those_who_wait_is_found_by_nobody_after_them(replicas) -> None:
    for text in ("".join(WORDS), "another text"):
        await hand_over_to_all(text, replicas)
        for replica in reversed(replicas):
            plain = pb.LookupInferenceRequest(key=question())
            assert (await replica.calls.look_up_inference(plain)).outcome == MISS
            # Who comes next gets the right to compute it.
            await replica.release(await lease_of(replica))


async def hand_over_to_all(text: str, replicas: tuple[Replica, Replica]) -> None:
    """Has callers on all replicas wait for an answer that is then for them alone."""
    generation = Generation(replicas[0], await lease_of(replicas[0]))
    followers = [Follower(replica) for replica in replicas]
    waiting = [asyncio.create_task(replica.look_up()) for replica in replicas]
    generation.generate(text)
    await eventually(lambda: all(each.text == text for each in followers))
    await all_waiting(4, *replicas)
    assert not (await generation.hand_over()).stored
    await asyncio.wait([each.call for each in followers] + waiting)
    for follower in followers:
        assert kinds(follower) == ["started", "text_delta", "completed"]
        assert follower.last.completed == answer(text)
    for waiter in waiting:
        assert waiter.result().outcome == COALESCED
        assert waiter.result().inference == answer(text)


async def lease_of_followers(followers: list[Follower]) -> str:
    """Waits until one of several has the lease, and takes it out."""
    await asyncio.wait([each.call for each in followers], return_when=asyncio.FIRST_COMPLETED)
    (done,) = [each for each in followers if each.call.done()]
    followers.remove(done)
    assert kinds(done) == ["started"]
    assert done.started.outcome == MISS
    return done.started.lease.token


async def test_clusters_and_sentinels_serve_as_well(any_redis) -> None:
    async with running_replica(any_redis.url) as one, running_replica(any_redis.url) as two:
        generation = Generation(one, await lease_of(one))
        follower = Follower(two)
        waiting = asyncio.create_task(two.look_up())
        generation.generate(*WORDS)
        await eventually(lambda: follower.text == "".join(WORDS))
        assert (await generation.commit()).stored
        await follower.call
        assert kinds(follower) == ["started", "text_delta", "completed"]
        assert (await waiting).outcome == COALESCED
        lease = (await two.look_up("another question")).lease
        await two.release(lease.token, kind=pb.FAILURE_KIND_REJECTED, text="another question")
        assert (await one.look_up("another question")).outcome == NEGATIVE
        await eventually(lambda: one.is_idle and two.is_idle)


async def test_the_replica_of_the_fill_need_not_be_that_of_the_lease(replicas) -> None:
    one, two = replicas
    token = await lease_of(one)
    followers = [Follower(one), Follower(two)]
    await all_waiting(2, one, two)
    generation = Generation(two, token)
    generation.generate("some ", "text")
    await eventually(lambda: all(each.text == "some text" for each in followers))
    await generation.commit()
    await asyncio.wait([each.call for each in followers])
    assert {each.last.WhichOneof("event") for each in followers} == {"completed"}


async def test_the_first_text_reaches_other_replicas_within_a_batch(replicas) -> None:
    one, two = replicas
    token = await lease_of(one)
    follower = Follower(two)
    await all_waiting(1, two)
    generation = Generation(one, token)
    started = time.monotonic()
    generation.generate("first")
    await eventually(lambda: follower.text == "first")
    assert follower.times[0] - started < 0.2
    await generation.commit()
    await follower.call


async def test_a_slow_follower_holds_nobody_up(replicas) -> None:
    one, two = replicas
    token = await lease_of(one)
    slow = [Follower(each, pause_seconds=0.3) for each in replicas]
    quick = [Follower(each) for each in replicas]
    await all_waiting(4, one, two)
    generation = Generation(one, token)
    started = time.monotonic()
    for word in WORDS:
        generation.generate(word, "x" * 5000)
    assert (await generation.commit()).stored
    await asyncio.wait([each.call for each in quick])
    assert time.monotonic() - started < 1.0
    assert not any(each.call.done() for each in slow)
    for each in slow:
        each._pause_seconds = 0.0
    await asyncio.wait([each.call for each in slow])
    assert len({each.text for each in quick + slow}) == 1
    assert {each.last.WhichOneof("event") for each in slow} == {"completed"}


async def test_an_aborted_generation_is_not_kept_and_one_follower_takes_over(replicas) -> None:
    one, two = replicas
    token = await lease_of(one)
    followers = [Follower(each) for each in (one, two, one, two)]
    await all_waiting(4, one, two)
    generation = Generation(one, token)
    generation.generate("half an ")
    await eventually(lambda: all(each.text for each in followers))
    response = await generation.abort(pb.FAILURE_KIND_TRANSIENT, "reset by peer")
    assert (response.stored, response.degraded) == (False, False)
    await asyncio.wait([each.call for each in followers])
    for each in followers:
        assert kinds(each) == ["started", "text_delta", "interrupted"]
        assert each.last.interrupted.failure.message == "reset by peer"
        assert each.last.interrupted.failure.kind == pb.FAILURE_KIND_TRANSIENT
    (second,) = [
        each.last.interrupted.lease.token
        for each in followers
        if each.last.interrupted.HasField("lease")
    ]
    assert second > token
    assert (await two.store(token=second)).stored


@pytest.mark.parametrize("where", ["of the fill", "of another"])
async def test_a_generation_cut_off_in_the_middle_leaves_nothing_behind(replicas, where) -> None:
    one, two = replicas
    token = await lease_of(one)
    follower = Follower(one if where == "of the fill" else two)
    await all_waiting(1, one, two)
    generation = Generation(one, token)
    generation.generate("half an ")
    await eventually(lambda: follower.text == "half an ")
    generation.call.cancel()
    await asyncio.wait([generation.call, follower.call])
    interrupted = follower.last.interrupted
    assert interrupted.HasField("failure")
    assert interrupted.lease.token > token
    plain = pb.LookupInferenceRequest(key=question())
    for replica in replicas:
        assert (await replica.calls.look_up_inference(plain)).outcome == MISS
    await two.release(interrupted.lease.token)


async def test_a_follower_without_text_just_becomes_the_next_leader(replicas) -> None:
    one, two = replicas
    token = await lease_of(one)
    follower = Follower(two)
    await all_waiting(1, two)
    generation = Generation(one, token)
    await eventually(lambda: one.calls.under_way()["texts"] == 1)
    await generation.abort()
    await follower.call
    assert kinds(follower) == ["started"]
    assert follower.started.outcome == MISS
    await two.release(follower.started.lease.token)


async def test_followers_learn_of_a_lasting_failure(replicas) -> None:
    one, two = replicas
    token = await lease_of(one)
    followers = [Follower(one), Follower(two)]
    await all_waiting(2, one, two)
    generation = Generation(two, token)
    generation.generate("I'm sor")
    await eventually(lambda: all(each.text for each in followers))
    await generation.abort(pb.FAILURE_KIND_REJECTED, "too long")
    await asyncio.wait([each.call for each in followers])
    for each in followers:
        assert each.last.interrupted.failure.message == "too long"
        assert not each.last.interrupted.HasField("lease")
    for replica in replicas:
        assert (await replica.look_up()).outcome == NEGATIVE


async def test_the_lease_is_kept_up_while_the_stream_lasts(replicas) -> None:
    one, two = replicas
    one.calls._times.note(question().model_digest, 0.001)
    one.calls._times.lease_seconds = lambda _digest: 2.0
    token = (await one.look_up(lease=1.0)).lease.token
    generation = Generation(one, token)
    for _ in range(5):
        generation.generate("more ")
        assert (await two.look_up(wait=0.5)).outcome == WAITED
    assert (await generation.commit()).stored


async def test_a_stream_without_news_keeps_its_lease_for_a_bounded_time(
    replicas, monkeypatch
) -> None:
    monkeypatch.setattr(fill_writer, "LONGEST_SILENCE_SECONDS", 2.0)
    one, two = replicas
    one.calls._times.lease_seconds = lambda _digest: 1.5
    token = (await one.look_up(lease=1.0)).lease.token
    generation = Generation(one, token)
    await asyncio.sleep(0.5)
    generation.generate("half an ")
    # Longer than the lease itself: a silent stream is kept up at first.
    assert (await two.look_up(wait=2.0)).outcome == WAITED
    found = await two.look_up(wait=5.0)
    assert found.outcome == MISS
    assert found.lease.token > token
    generation.generate("answer")
    with pytest.raises(LeaseLost):
        await generation.commit()
    assert (await two.store(token=found.lease.token)).stored


async def test_a_stream_that_speaks_again_in_time_has_its_lease_kept_up_at_once(
    replicas, monkeypatch
) -> None:
    monkeypatch.setattr(fill_writer, "LONGEST_SILENCE_SECONDS", 0.2)
    one, two = replicas
    one.calls._times.lease_seconds = lambda _digest: 1.5
    token = await lease_of(one)
    generation = Generation(one, token)
    await asyncio.sleep(0.7)
    for _ in range(12):
        generation.generate("more ")
        await asyncio.sleep(0.1)
    assert (await two.look_up(wait=0.1)).outcome == WAITED
    assert (await generation.commit()).stored


async def test_a_fill_whose_lease_was_lost_is_refused_and_interrupts_its_followers(
    replicas, redis_server
) -> None:
    one, two = replicas
    token = await lease_of(one)
    generation = Generation(one, token)
    follower = Follower(two)
    generation.generate("from the first")
    await eventually(lambda: follower.text == "from the first")
    await two.release(token)
    await follower.call
    second = follower.last.interrupted.lease.token
    assert second > token
    generation.generate(" more")
    await asyncio.sleep(0.2)
    with pytest.raises(LeaseLost) as lost:
        await generation.commit()
    assert lost.value.metadata == {"field": "open.lease_token"}
    await two.store(token=second, inference=answer("of the second"))
    for replica in replicas:
        assert (await replica.look_up()).inference.text == "of the second"


async def test_an_answer_invalidated_while_it_was_followed_is_void(replicas) -> None:
    one, two = replicas
    token = await lease_of(one)
    followers = [Follower(one), Follower(two)]
    await all_waiting(2, one, two)
    generation = Generation(one, token)
    generation.generate("stale")
    await eventually(lambda: all(each.text == "stale" for each in followers))
    bump = await two.levels.epochs.bump("default", [EVERYTHING])
    await one.told_of(bump, EVERYTHING)
    late = Follower(one)
    await asyncio.sleep(0.1)
    assert not late.events
    assert not (await generation.commit()).stored
    await asyncio.wait([each.call for each in followers])
    assert {each.last.WhichOneof("event") for each in followers} == {"interrupted"}
    tokens = [each.last.interrupted.lease.token for each in followers]
    await eventually(lambda: late.call.done() or any(tokens))
    tokens += [late.started.lease.token] if late.events else []
    (second,) = [token for token in tokens if token]
    assert (await one.store(token=second)).stored
    await late.call


async def followed_until_invalidated(
    replicas: tuple[Replica, Replica], control: control_pb2.StoreControl, field: str
) -> None:
    """Has an answer followed, invalidates what it depends on, and has it go on after that."""
    one, two = replicas
    token = await lease_of(one)
    early = [Follower(one), Follower(two)]
    await all_waiting(2, one, two)
    generation = Generation(one, token, control)
    generation.generate("before")
    await eventually(lambda: all(each.text == "before" for each in early))
    epoch_ms = (await two.levels.epochs.bump("default", [field])).epoch_ms
    await eventually(
        lambda: all(
            each.levels.epochs.invalidated_at("default", field) == epoch_ms for each in replicas
        )
    )
    late = [Follower(one), Follower(two)]
    await all_waiting(4, one, two)
    generation.generate(" after", *WORDS)
    await asyncio.wait([each.call for each in early], timeout=5.0)
    assert [(kinds(each), each.text) for each in early] == [
        (["started", "text_delta", "interrupted"], "before")
    ] * 2
    assert not any(each.last.interrupted.HasField("lease") for each in early)
    assert not any(each.events for each in late)
    assert not (await generation.commit()).stored
    token = await lease_of_followers(late)
    assert (await two.store(token=token, inference=answer("anew"))).stored
    await asyncio.wait([each.call for each in late])
    assert [each.text for each in late] == ["anew"]


async def test_text_of_an_invalidated_document_goes_no_further(replicas) -> None:
    control = control_pb2.StoreControl()
    document = control.tags.add().document
    document.collection, document.document_id = "laws", "1"
    await followed_until_invalidated(replicas, control, document_tag("laws", "1"))


async def test_text_on_the_basis_of_what_was_invalidated_before_its_lease_is_shown_to_nobody(
    replicas,
) -> None:
    one, two = replicas
    field = document_tag("laws", "1")
    basis_ms = one.levels.store_now_ms() - 1000
    await two.levels.epochs.bump("default", [field])
    control = control_pb2.StoreControl()
    control.basis_time.FromMilliseconds(basis_ms)
    document = control.tags.add().document
    document.collection, document.document_id = "laws", "1"
    generation = Generation(one, await lease_of(one), control)
    followers = [Follower(one), Follower(two)]
    await all_waiting(2, one, two)
    generation.generate("of the old document")
    await asyncio.sleep(0.2)
    assert not any(each.events for each in followers)
    assert not (await generation.commit()).stored
    token = await lease_of_followers(followers)
    await two.store(token=token)
    await asyncio.wait([each.call for each in followers])


async def test_text_is_followed_whatever_else_is_invalidated(replicas) -> None:
    one, two = replicas
    control = control_pb2.StoreControl()
    document = control.tags.add().document
    document.collection, document.document_id = "laws", "1"
    generation = Generation(one, await lease_of(one), control)
    followers = [Follower(one), Follower(two)]
    generation.generate("some ")
    await eventually(lambda: all(each.text == "some " for each in followers))
    await two.levels.epochs.bump("default", [document_tag("laws", "2")])
    followers += [Follower(one), Follower(two)]
    generation.generate("text")
    await eventually(lambda: all(each.text == "some text" for each in followers))
    assert (await generation.commit()).stored
    await asyncio.wait([each.call for each in followers])


async def test_who_has_begun_one_text_is_never_given_another_answer(replicas) -> None:
    one, two = replicas
    token = await lease_of(one)
    followers = [Follower(one), Follower(two)]
    await all_waiting(2, one, two)
    generation = Generation(one, token)
    generation.generate("it is so")
    await eventually(lambda: all(each.text == "it is so" for each in followers))
    await two.store(token=token, inference=answer("it is not so"))
    await asyncio.wait([each.call for each in followers])
    for each in followers:
        assert kinds(each) == ["started", "text_delta", "interrupted"]
        assert not each.last.interrupted.HasField("lease")
    with pytest.raises(LeaseLost):
        await generation.commit()
    assert (await one.look_up()).inference.text == "it is not so"


CUT = pb.Inference(finish_reason=generation_pb2.FINISH_REASON_LENGTH)


@pytest.mark.parametrize(
    ("deltas", "inference"),
    [
        (["cut by a default li"], CUT),
        ([], answer("")),
        (["x" * 1_000_000, "x" * 100_000], answer("")),
    ],
    ids=["cut", "empty", "too large"],
)
async def test_what_others_could_not_use_is_not_kept_and_the_lease_given_back(
    replicas, deltas, inference
) -> None:
    one, two = replicas
    token = await lease_of(one)
    next_one = asyncio.create_task(two.look_up())
    await all_waiting(1, two)
    generation = Generation(one, token)
    generation.generate(*deltas)
    response = await generation.commit(inference)
    assert (response.stored, response.degraded) == (False, False)
    found = await next_one
    assert found.outcome == MISS
    await two.release(found.lease.token)


async def test_an_answer_of_tool_calls_alone_is_kept(replicas) -> None:
    one, two = replicas
    inference = answer("")
    inference.tool_calls.add(name="search", arguments_json="{}")
    generation = Generation(one, await lease_of(one))
    assert (await generation.commit(inference)).stored
    assert (await two.look_up()).inference == inference


async def test_a_length_that_was_asked_for_is_no_cut(replicas) -> None:
    one, _ = replicas
    key = question(max_output_token_count=1)
    request = pb.LookupInferenceRequest(key=key, flight=pb.FlightOptions())
    lease = (await one.calls.look_up_inference(request)).lease
    opening = Event(open=pb.FillOpening(key=key, lease_token=lease.token))
    messages = [opening, Event(text_delta="be"), Event(commit=CUT)]
    assert (await one.fill(_each(messages))).stored


async def _each(messages: list[Event]) -> AsyncIterator[Event]:
    for message in messages:
        yield message


@pytest.mark.parametrize(
    ("messages", "expected", "actual"),
    [
        ([], "open", "the end"),
        ([Event(text_delta="x")], "open", "text_delta"),
        ([Event()], "open", "an unknown message"),
        (["open", "open"], "a delta, commit, hand_over or abort", "open"),
        (["open", Event()], "a delta, commit, hand_over or abort", "an unknown message"),
        (["open", Event(text_delta="x")], "a delta, commit, hand_over or abort", "the end"),
    ],
)
async def test_messages_out_of_order_are_refused_and_nothing_is_kept(
    replicas, messages, expected, actual
) -> None:
    one, two = replicas
    token = await lease_of(one)
    opening = Event(open=pb.FillOpening(key=question(), lease_token=token))
    sent = [opening if message == "open" else message for message in messages]
    with pytest.raises(StreamProtocolViolation) as refused:
        await one.fill(_each(sent))
    assert refused.value.metadata == {"expected": expected, "actual": actual}
    if opening in sent:
        token = (await two.look_up()).lease.token
    await two.release(token)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (Event(text_delta=""), "text_delta"),
        (Event(thinking_delta=""), "thinking_delta"),
        (Event(commit=answer("text")), "commit.text"),
        (Event(commit=answer("", thinking="hm")), "commit.thinking"),
        (Event(commit=pb.Inference()), "commit.finish_reason"),
        (Event(abort=pb.Failure(message="x" * 501)), "abort.message"),
    ],
)
async def test_faulty_messages_are_refused_and_the_lease_given_back(
    replicas, message, field
) -> None:
    one, two = replicas
    generation = Generation(one, await lease_of(one))
    generation.generate("text")
    generation.send(message)
    with pytest.raises(InvalidRequest) as refused:
        await generation.call
    assert [each.field for each in refused.value.violations] == [field]
    found = await two.look_up(wait=1.0)
    assert found.outcome == MISS
    await two.release(found.lease.token)


async def test_a_fill_without_its_lease_is_refused_at_once(replicas) -> None:
    one, two = replicas
    token = await lease_of(one)
    with pytest.raises(LeaseLost):
        await two.fill(fill_messages("0000000000000001-invented", ["text"]))
    with pytest.raises(LeaseLost):
        await two.fill(fill_messages(token, ["text"], text="another question"))
    assert (await two.fill(fill_messages(token, ["text"]))).stored
    with pytest.raises(LeaseLost):
        await two.fill(fill_messages(token, ["again"]))
    assert (await one.look_up()).inference.text == "text"


async def test_a_leader_who_falls_silent_is_replaced(replicas) -> None:
    one, two = replicas
    token = (await one.look_up(lease=1.0)).lease.token
    follower = Follower(two)
    await follower.call
    assert kinds(follower) == ["started"]
    assert follower.started.lease.token > token
    await two.release(follower.started.lease.token)


async def test_a_follower_who_leaves_leaves_nothing_behind(replicas) -> None:
    one, _ = replicas
    token = await lease_of(one)
    followers = [Follower(each) for each in replicas]
    generation = Generation(one, token)
    generation.generate("text")
    await eventually(lambda: all(each.text for each in followers))
    for each in followers:
        each.call.cancel()
    await asyncio.wait([each.call for each in followers])
    await eventually(lambda: not any(each.calls.under_way()["tails"] for each in replicas))
    await eventually(lambda: not any(each.calls.under_way()["lines"] for each in replicas))
    assert (await generation.commit()).stored


async def test_a_lease_that_a_streaming_caller_does_not_take_is_given_back(replicas) -> None:
    one, two = replicas
    request = pb.StreamInferenceRequest(key=question(), flight=pb.FlightOptions())
    stream = one.calls.stream_inference(request)
    first = await anext(stream)
    assert first.started.lease.token
    # Where sending the message fails, the stream is closed in the middle of it.
    await stream.aclose()
    await eventually(lambda: one.count(FlightEvent.RELEASED) == 1)
    found = await two.look_up()
    assert found.outcome == MISS
    await two.release(found.lease.token)


async def test_a_plain_stream_replays_or_misses(replicas) -> None:
    one, two = replicas
    request = pb.StreamInferenceRequest(key=question())
    (only,) = [event async for event in one.calls.stream_inference(request)]
    assert only.started.outcome == MISS
    assert not only.started.HasField("lease")
    long = answer("line\n" * 3000)
    await one.store(inference=long)
    events = [event async for event in two.calls.stream_inference(request)]
    assert events[0].started.outcome == SHARED
    assert not events[0].started.HasField("inference")
    deltas = [event.text_delta for event in events[1:-1]]
    assert max(map(len, deltas)) <= 4096
    assert all(delta.endswith("\n") for delta in deltas)
    assert "".join(deltas) == long.text
    assert events[-1].completed == long
