"""Of all who want the same answer at the same time, on all replicas, one computes it."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from google.protobuf.duration_pb2 import Duration
from redis.asyncio import Redis

from pannier.cache.v1 import cache_service_pb2 as pb
from pannier.cache.v1 import control_pb2
from services.cache.core import refresh
from services.cache.core.errors import LeaseLost
from services.cache.core.layers import Layer
from services.cache.core.tags import EVERYTHING
from services.cache.lease_store import StoredValue
from services.cache.recorder import FlightEvent
from services.common.identity import Identity, current_identity
from tests.kit.cache_replicas import (
    ANSWER,
    Replica,
    answer,
    eventually,
    flight,
    question,
    running_replica,
)
from tests.kit.lateness import measured_lateness
from tests.kit.redis import RedisServer

MISS, LOCAL, SHARED, COALESCED, NEGATIVE, WAITED = (
    pb.LOOKUP_OUTCOME_MISS,
    pb.LOOKUP_OUTCOME_HIT_LOCAL,
    pb.LOOKUP_OUTCOME_HIT_SHARED,
    pb.LOOKUP_OUTCOME_HIT_COALESCED,
    pb.LOOKUP_OUTCOME_HIT_NEGATIVE,
    pb.LOOKUP_OUTCOME_MISS_WAITED,
)
Lookups = list["asyncio.Task[pb.LookupInferenceResponse]"]


@pytest.fixture
async def replicas(redis_server: RedisServer) -> AsyncIterator[tuple[Replica, Replica]]:
    """Two replicas in front of an empty Redis; nothing may be left when the callers are done."""
    async with running_replica(redis_server.url) as one, running_replica(redis_server.url) as two:
        yield one, two
        await eventually(lambda: one.is_idle and two.is_idle)


@pytest.fixture
async def answers(redis_server: RedisServer) -> AsyncIterator["Redis"]:
    """The database where answers live."""
    async with Redis(port=redis_server.port, db=1) as client:
        yield client


def start(count: int, *replicas: Replica, **wish: float) -> Lookups:
    """Starts callers, in turn on each replica."""
    return [
        asyncio.create_task(replicas[number % len(replicas)].look_up(**wish))
        for number in range(count)
    ]


async def leader(callers: Lookups) -> pb.Lease:
    """Waits until one of the callers has a lease, and takes that caller out."""
    await asyncio.wait(callers, return_when=asyncio.FIRST_COMPLETED)
    (done,) = [caller for caller in callers if caller.done()]
    callers.remove(done)
    assert done.result().outcome == MISS
    assert done.result().lease.token
    return done.result().lease


def outcomes(callers: Lookups) -> Counter[int]:
    return Counter(caller.result().outcome for caller in callers)


def leases_given(*replicas: Replica) -> int:
    return sum(replica.count(FlightEvent.LEASED) for replica in replicas)


def script_calls(server: RedisServer) -> int:
    """Returns how many scripts have been run since the last reset."""
    lines = server.command("INFO", "commandstats").splitlines()
    (scripts,) = [line for line in lines if line.startswith("cmdstat_evalsha:")]
    return int(scripts.split("calls=")[1].split(",")[0])


async def all_waiting(count: int, *replicas: Replica) -> None:
    await eventually(
        lambda: sum(each.levels.recorder.flights.waiting_count for each in replicas) == count
    )


async def test_of_200_cold_callers_on_two_replicas_one_computes(replicas, redis_server) -> None:
    one, two = replicas
    for replica in replicas:
        await replica.store("a question to warm up")
    redis_server.command("CONFIG", "RESETSTAT")
    callers = start(200, one, two)
    lease = await leader(callers)
    await all_waiting(199, one, two)
    stored = await one.store(token=lease.token)
    assert stored.stored
    await asyncio.wait(callers)
    assert outcomes(callers) == {COALESCED: 199}
    assert {caller.result().inference.SerializeToString() for caller in callers} == {
        ANSWER.SerializeToString()
    }
    assert leases_given(one, two) == 1
    # One question and one re-check each, one answer, and what keeps invalidations in step.
    assert script_calls(redis_server) <= 8


async def test_the_answer_is_there_for_those_who_come_later(replicas) -> None:
    one, two = replicas
    lease = (await one.look_up()).lease
    await two.store(token=lease.token)
    assert (await two.look_up()).outcome == LOCAL
    # Whoever asks before the notice has come waits with the others for the answer.
    await eventually(lambda: one.is_idle)
    found = await one.look_up()
    assert (found.outcome, found.inference) == (SHARED, ANSWER)
    assert 0 < found.remaining.ToSeconds() <= 86_400
    assert not found.HasField("lease")


async def test_a_follower_takes_over_when_the_leader_never_answers(replicas) -> None:
    one, two = replicas
    callers = start(1, one, lease=1.0)
    first = await leader(callers)
    callers = start(40, one, two, lease=5.0)
    async with measured_lateness() as lateness:
        started = time.monotonic()
        second = await leader(callers)
        assert 0.8 < time.monotonic() - started < 1.4 + lateness.seconds
    assert second.token > first.token
    await all_waiting(39, one, two)
    await two.store(token=second.token)
    await asyncio.wait(callers)
    assert outcomes(callers) == {COALESCED: 39}
    assert leases_given(one, two) == 2
    assert one.count(FlightEvent.EXPIRED) == 1


async def test_a_late_write_is_rejected_and_the_second_answer_kept(replicas) -> None:
    one, two = replicas
    first = (await one.look_up(lease=1.0)).lease
    second = (await two.look_up(lease=30.0)).lease
    assert second.token > first.token
    with pytest.raises(LeaseLost):
        await one.store(token=first.token, inference=answer("too late"))
    await two.store(token=second.token, inference=answer("in time"))
    with pytest.raises(LeaseLost):
        await one.store(token=first.token, inference=answer("much too late"))
    for replica in replicas:
        assert (await replica.look_up()).inference.text == "in time"
    assert one.count(FlightEvent.REJECTED) == 2


async def test_a_lease_given_back_goes_to_the_next_at_once(replicas) -> None:
    one, two = replicas
    callers = start(1, one)
    first = await leader(callers)
    callers = start(3, two)
    await all_waiting(3, two)
    started = time.monotonic()
    assert not (await two.release(first.token)).degraded
    second = await leader(callers)
    assert time.monotonic() - started < 0.5
    assert second.token > first.token
    await one.store(token=second.token)
    await asyncio.wait(callers)
    assert outcomes(callers) == {COALESCED: 2}


async def test_a_caller_waits_no_longer_than_it_wishes(replicas) -> None:
    one, _ = replicas
    lease = (await one.look_up()).lease
    for replica in replicas:
        async with measured_lateness() as lateness:
            started = time.monotonic()
            waited = await replica.look_up(wait=0.2)
            assert 0.15 < time.monotonic() - started < 0.4 + lateness.seconds
        assert waited.outcome == WAITED
        assert not waited.HasField("lease")
        assert (await replica.look_up(wait=0.0)).outcome == WAITED
    assert one.count(FlightEvent.WAIT_ENDED) == 2
    await one.release(lease.token)


async def test_a_caller_waits_no_longer_than_its_deadline_allows(redis_server) -> None:
    ends_at = [time.monotonic() + 60]
    async with (
        running_replica(redis_server.url) as one,
        running_replica(
            redis_server.url, remaining_seconds=lambda: ends_at[0] - time.monotonic()
        ) as two,
    ):
        lease = (await one.look_up()).lease
        async with measured_lateness() as lateness:
            ends_at[0] = time.monotonic() + 0.4
            assert (await two.look_up(wait=30.0)).outcome == WAITED
            assert 0.03 - lateness.seconds < ends_at[0] - time.monotonic() < 0.1
        ends_at[0] = time.monotonic() + 60
        await one.release(lease.token)


async def test_a_lease_whose_caller_leaves_before_the_reply_is_given_back(replicas) -> None:
    one, two = replicas
    await one.store("a question to warm up")
    for _ in range(20):
        caller = asyncio.create_task(one.look_up())
        # Deep enough for the store to be asked, not for its reply to be back.
        for _ in range(4):
            await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait([caller])
        assert caller.cancelled()
    started = time.monotonic()
    lease = (await two.look_up()).lease
    assert time.monotonic() - started < 1.0
    assert lease.token
    await two.release(lease.token)


async def test_callers_who_leave_hold_nobody_up(replicas) -> None:
    one, two = replicas
    lease = (await one.look_up()).lease
    leaving, staying = start(50, one, two), start(10, one, two)
    await all_waiting(60, one, two)
    for caller in leaving:
        caller.cancel()
    await asyncio.wait(leaving)
    await all_waiting(10, one, two)
    await one.store(token=lease.token)
    await asyncio.wait(staying)
    assert outcomes(staying) == {COALESCED: 10}


async def test_nobody_waits_for_others_when_the_service_ends(replicas) -> None:
    one, two = replicas
    lease = (await one.look_up()).lease
    callers = start(10, one, two)
    await all_waiting(10, one, two)
    for replica in replicas:
        replica.calls.end_waits()
    await asyncio.wait(callers)
    assert outcomes(callers) == {WAITED: 10}
    await one.release(lease.token)


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [(pb.FAILURE_KIND_MODEL_NOT_FOUND, 30), (pb.FAILURE_KIND_REJECTED, 300)],
)
async def test_a_lasting_failure_is_told_to_all_who_wait_and_who_come(
    replicas, kind, seconds
) -> None:
    one, two = replicas
    lease = (await one.look_up()).lease
    callers = start(10, one, two)
    await all_waiting(10, one, two)
    released = await two.release(lease.token, kind=kind, message="it cannot be")
    assert released.remembered_for.ToSeconds() == seconds
    await asyncio.wait(callers)
    callers += start(2, one, two)
    await asyncio.wait(callers)
    for caller in callers:
        found = caller.result()
        assert found.outcome == NEGATIVE
        assert (found.failure.kind, found.failure.message) == (kind, "it cannot be")
        assert seconds - 10 < found.failure.remaining.ToSeconds() <= seconds
    assert leases_given(one, two) == 1


async def test_the_third_passing_failure_within_30_seconds_protects_the_backend(replicas) -> None:
    one, two = replicas
    for replica, remembered in ((one, 0), (two, 0), (one, 10)):
        found = await replica.look_up()
        assert found.outcome == MISS
        released = await replica.release(
            found.lease.token, kind=pb.FAILURE_KIND_TRANSIENT, message="reset"
        )
        assert released.remembered_for.ToSeconds() == remembered
    assert (await two.look_up()).outcome == NEGATIVE
    await one.store()
    assert (await two.look_up()).outcome == SHARED


async def test_an_answer_makes_failures_forgotten(replicas) -> None:
    one, _ = replicas
    for _ in range(2):
        lease = (await one.look_up()).lease
        await one.release(lease.token, kind=pb.FAILURE_KIND_TRANSIENT)
    lease = (await one.look_up()).lease
    await one.store(token=lease.token, inference=answer("short-lived"))
    await one.levels.epochs.bump("default", [EVERYTHING])
    lease = (await one.look_up()).lease
    released = await one.release(lease.token, kind=pb.FAILURE_KIND_TRANSIENT)
    assert released.remembered_for.ToSeconds() == 0


async def test_an_answer_invalidated_while_it_was_computed_is_given_to_nobody(replicas) -> None:
    one, two = replicas
    lease = (await one.look_up()).lease
    callers = start(6, one, two)
    await all_waiting(6, one, two)
    bump = await two.levels.epochs.bump("default", [EVERYTHING])
    await one.told_of(bump, EVERYTHING)
    stored = await one.store(token=lease.token, inference=answer("stale"))
    assert not stored.stored
    second = await leader(callers)
    await all_waiting(5, one, two)
    await two.store(token=second.token, inference=answer("fresh"))
    await asyncio.wait(callers)
    assert {caller.result().inference.text for caller in callers} == {"fresh"}


async def test_an_answer_invalidated_since_does_not_stand_in_the_way(replicas) -> None:
    one, two = replicas
    await one.store(inference=answer("stale"))
    await one.levels.epochs.bump("default", [EVERYTHING])
    callers = start(10, two)
    lease = await leader(callers)
    await all_waiting(9, two)
    await one.store(token=lease.token, inference=answer("fresh"))
    await asyncio.wait(callers)
    assert {caller.result().inference.text for caller in callers} == {"fresh"}
    assert leases_given(two) == 1


async def test_who_wants_a_younger_answer_computes_it_and_others_are_served(replicas) -> None:
    one, two = replicas
    await one.store(inference=answer("old"))
    await asyncio.sleep(0.1)
    request = pb.LookupInferenceRequest(
        key=question(),
        flight=flight(),
        control=control_pb2.LookupControl(max_age=Duration(nanos=50_000_000)),
    )
    found = await two.calls.look_up_inference(request)
    assert found.outcome == MISS
    assert (await two.look_up()).inference.text == "old"
    callers = start(3, one)
    await asyncio.wait(callers)
    assert outcomes(callers) == {LOCAL: 3}
    await two.store(token=found.lease.token, inference=answer("young"))
    assert (await one.look_up()).outcome == LOCAL


async def test_a_damaged_value_is_computed_anew(replicas, answers) -> None:
    one, two = replicas
    await one.store()
    (key,) = await answers.keys("*:v")
    await answers.set(key, b"damaged by someone else")
    callers = start(5, two)
    lease = await leader(callers)
    await all_waiting(4, two)
    await two.store(token=lease.token)
    await asyncio.wait(callers)
    assert outcomes(callers) == {COALESCED: 4}


@pytest.mark.parametrize("value", [b"", b"x"])
async def test_a_value_of_next_to_nothing_is_computed_anew(replicas, answers, value) -> None:
    one, two = replicas
    await one.store()
    (key,) = await answers.keys("*:v")
    await answers.set(key, value)
    async with asyncio.timeout(2.0):
        found = await two.look_up()
    assert found.outcome == MISS
    await two.store(token=found.lease.token)
    assert (await answers.get(key)) != value


async def test_values_that_serve_nobody_are_not_asked_for_without_a_pause(
    replicas, monkeypatch
) -> None:
    one, _ = replicas
    asked = 0

    async def take(*_: object, **__: object) -> StoredValue:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return StoredValue(b"%d" % asked)

    with monkeypatch.context() as patch:
        patch.setattr(one.calls._leases, "take", take)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await one.look_up()
        assert 2 < asked < 20
        await eventually(lambda: one.is_idle)


async def test_values_of_another_type_stop_nobody(replicas, answers) -> None:
    one, two = replicas
    await one.store()
    (key,) = await answers.keys("*:v")
    for name in (key, key[:-1] + b"l", key[:-1] + b"n", key[:-1] + b"s"):
        await answers.delete(name)
        await answers.rpush(name, "a list")
    found = await two.look_up()
    assert (found.outcome, found.degraded) == (MISS, False)
    assert (await two.store(token=found.lease.token)).stored
    assert (await one.look_up()).inference == ANSWER


async def test_a_lease_is_good_for_its_own_answer_only(replicas) -> None:
    one, two = replicas
    lease = (await one.look_up()).lease
    other = (await one.look_up("what?")).lease
    for replica in replicas:
        with pytest.raises(LeaseLost):
            await replica.store("what?", token=lease.token)
        with pytest.raises(LeaseLost):
            await replica.release(lease.token, text="what?")
        with pytest.raises(LeaseLost):
            await replica.calls.extend_lease(
                pb.ExtendLeaseRequest(key=question("what?"), lease_token=lease.token)
            )
    assert (await two.store("what?", token=other.token)).stored
    assert (await two.store(token=lease.token)).stored


async def test_a_lease_is_good_for_its_own_tenant_only(replicas) -> None:
    one, two = replicas
    lease = (await one.look_up()).lease
    before = current_identity.set(Identity("globex"))
    try:
        for replica in replicas:
            with pytest.raises(LeaseLost):
                await replica.store(token=lease.token)
        own = await two.look_up()
        assert own.outcome == MISS
        assert own.lease.token != lease.token
        await two.release(own.lease.token)
    finally:
        current_identity.reset(before)
    await two.store(token=lease.token)


@pytest.mark.parametrize("token", ["no token", "9999999999999999-forged", "x" * 64])
async def test_an_invented_lease_is_good_for_nothing(replicas, token) -> None:
    one, _ = replicas
    with pytest.raises(LeaseLost):
        await one.store(token=token)
    with pytest.raises(LeaseLost):
        await one.release(token)
    lease = (await one.look_up()).lease
    with pytest.raises(LeaseLost):
        await one.store(token=token)
    assert (await one.store(token=lease.token)).stored


async def test_a_lease_can_be_prolonged_through_any_replica(replicas) -> None:
    one, two = replicas
    lease = (await one.look_up(lease=1.0)).lease
    request = pb.ExtendLeaseRequest(
        key=question(), lease_token=lease.token, lease_time=Duration(seconds=20)
    )
    extended = await two.calls.extend_lease(request)
    assert (extended.duration.ToSeconds(), extended.degraded) == (20, False)
    assert (await two.look_up(wait=1.5)).outcome == WAITED
    assert (await one.store(token=lease.token)).stored


async def test_plain_lookups_never_wait_and_get_no_lease(replicas) -> None:
    one, _ = replicas
    lease = (await one.look_up()).lease
    request = pb.LookupInferenceRequest(key=question())
    for replica in replicas:
        found = await replica.calls.look_up_inference(request)
        assert found.outcome == MISS
        assert not found.HasField("lease")
        assert found.HasField("read_time")
    await one.release(lease.token)


async def test_who_bypasses_the_cache_gets_no_lease(replicas) -> None:
    one, _ = replicas
    await one.store()
    request = pb.LookupInferenceRequest(
        key=question(), flight=flight(), control=control_pb2.LookupControl(bypass=True)
    )
    found = await one.calls.look_up_inference(request)
    assert found.outcome == pb.LOOKUP_OUTCOME_BYPASSED
    assert not found.HasField("lease")


async def test_before_an_answer_expires_one_caller_computes_it_anew(
    redis_server, monkeypatch
) -> None:
    async with (
        running_replica(redis_server.url, draw=lambda: 0.999_999) as one,
        running_replica(redis_server.url, draw=lambda: 0.999_999) as two,
    ):
        control = control_pb2.StoreControl(ttl=Duration(seconds=30))
        await one.calls.store_inference(
            pb.StoreInferenceRequest(key=question(), inference=ANSWER, control=control)
        )
        early = [await replica.look_up() for replica in (one, two)]
        assert not any(found.HasField("lease") for found in early)
        # As if its last tenth had begun.
        monkeypatch.setattr(refresh, "_WINDOW_RATIO", 1.0)
        redis_server.command("CONFIG", "RESETSTAT")
        callers = start(20, one, two)
        await asyncio.wait(callers)
        # Of those who come at once, one of each replica asks.
        assert script_calls(redis_server) <= 4
        found = [caller.result() for caller in callers]
        assert {each.inference.text for each in found} == {"because"}
        (lease,) = [each.lease for each in found if each.HasField("lease")]
        assert one.count(FlightEvent.REFRESH_LEASED) + two.count(FlightEvent.REFRESH_LEASED) == 1
        await one.store(token=lease.token, inference=answer("fresh"))
        again = [await replica.look_up() for replica in (one, two, one, two)]
        assert {each.inference.text for each in again} == {"fresh"}
        assert not any(each.HasField("lease") for each in again)


async def test_a_spoilt_value_in_place_of_the_one_to_refresh_is_counted(
    redis_server, answers, monkeypatch
) -> None:
    # As if the last tenth of the answer's life had begun.
    monkeypatch.setattr(refresh, "_WINDOW_RATIO", 1.0)
    async with running_replica(redis_server.url, draw=lambda: 0.999_999) as one:
        control = control_pb2.StoreControl(ttl=Duration(seconds=30))
        await one.calls.store_inference(
            pb.StoreInferenceRequest(key=question(), inference=ANSWER, control=control)
        )
        (key,) = await answers.keys("*:v")
        # With more time left it looks as if somebody had been faster.
        await answers.set(key, b"spoilt", ex=3_600)
        found = await one.look_up()
        assert (found.outcome, found.inference.text) == (LOCAL, "because")
        assert not found.HasField("lease")
        *_, lifetime = one.levels.recorder.tallies[Layer.INFERENCE].spans(time.monotonic())
        assert lifetime.rejected_value_count == 1


async def test_a_refresh_lease_whose_caller_leaves_is_given_back(redis_server, monkeypatch) -> None:
    # As if the last tenth of the answer's life had begun.
    monkeypatch.setattr(refresh, "_WINDOW_RATIO", 1.0)
    async with running_replica(redis_server.url, draw=lambda: 0.999_999) as one:
        control = control_pb2.StoreControl(ttl=Duration(seconds=30))
        await one.calls.store_inference(
            pb.StoreInferenceRequest(key=question(), inference=ANSWER, control=control)
        )
        caller = asyncio.create_task(one.look_up())
        await asyncio.sleep(0)
        # The store has been asked; its reply is not back.
        assert one.calls.under_way()["tasks"] == 1
        caller.cancel()
        await asyncio.wait([caller])
        assert caller.cancelled()
        await eventually(lambda: one.is_idle)
        assert one.count(FlightEvent.RELEASED) == 1


async def test_a_value_of_the_memory_that_was_invalidated_is_counted_with_what_replaced_it(
    replicas,
) -> None:
    one, two = replicas
    await one.store()
    assert (await two.look_up()).outcome == SHARED
    await one.told_of(await two.levels.epochs.bump("default", [EVERYTHING]), EVERYTHING)
    async with asyncio.timeout(5):
        # Until the clock shows another millisecond than that of the invalidation.
        while not (await one.store(inference=answer("anew"))).stored:
            await asyncio.sleep(0.001)
    found = await two.look_up()
    assert (found.outcome, found.inference.text) == (SHARED, "anew")
    *_, lifetime = two.levels.recorder.tallies[Layer.INFERENCE].spans(time.monotonic())
    assert lifetime.invalidated_value_count == 1


async def test_waits_and_leases_are_counted(replicas) -> None:
    one, two = replicas
    lease = (await one.look_up()).lease
    callers = start(4, one, two)
    await all_waiting(4, one, two)
    tally = one.levels.recorder.flights
    assert (tally.held_count, tally.waiting_count) == (1, 2)
    await two.store(token=lease.token)
    await asyncio.wait(callers)
    await eventually(lambda: tally.held_count == 0)
    assert tally.waiting_count == 0
    assert one.count(FlightEvent.COALESCED) == two.count(FlightEvent.COALESCED) == 2
    assert two.count(FlightEvent.FILLED) == 1
