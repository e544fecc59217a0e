"""Loads, in virtual time, on servers that do what they are told or fail at random."""

import asyncio
import contextlib
import math
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.balancer.core.failures import AttemptFailed, FailureKind
from services.balancer.core.shares import SoleReplica
from services.balancer.core.snapshot import Residency
from services.balancer.core.standing import takes_requests
from services.balancer.load_models import Loaded, LoadLimits, NotLoaded
from tests.kit.balancer import FleetUnderTest, MemoryServer, a_chat_model, an_embedding_model
from tests.kit.virtual_time import run_virtually

A, B, C = "a:latest", "b:latest", "c:latest"


def virtually(test):
    """Runs a test in virtual time."""

    def run():
        run_virtually(test())

    run.__name__ = test.__name__
    return run


async def a_fleet(*names, **fields):
    server = MemoryServer(*(a_chat_model(name) for name in names or (A, B, C)))
    fleet = FleetUnderTest(server, **fields)
    await fleet.check()
    return fleet, server


@virtually
async def test_a_load_makes_a_model_warm_and_says_what_it_took():
    fleet, server = await a_fleet()
    result = await fleet.load(A)
    assert isinstance(result, Loaded)
    assert result.seconds == pytest.approx(5.0)
    assert fleet.residency(A) is Residency.WARM
    assert fleet.backend().loading_key is None
    assert server.loads == [(A, "1800s", 4096)]


@virtually
async def test_the_window_is_the_one_that_the_server_tells_and_not_the_one_asked_for():
    fleet, server = await a_fleet()
    server.installed[A] = a_chat_model(A, context_token_count=0)
    await fleet.check()
    server.disturb = shrink_context(server)
    await fleet.load(A, context=16_384)
    assert fleet.state(A).context_token_count == 1024
    # What asks for more is not to be loaded anew for it, over and over.
    (view,) = fleet.fleet.snapshot().backends
    assert view.models[A].holds(16_384)


def shrink_context(server):
    async def disturb(call):
        await asyncio.sleep(0)
        if call == "loaded" and A in server.memory:
            server.hold(A, context=1024)

    return disturb


@virtually
async def test_victims_are_gone_before_the_load_begins():
    fleet, server = await a_fleet()
    server.hold(B)
    await fleet.list()
    at_load = []

    async def disturb(call):
        await asyncio.sleep(0.2)
        if call == "load":
            at_load.append(set(server.memory))

    server.disturb = disturb
    assert fleet.loader.begin(fleet.order(A, evicted=(B,)))
    assert fleet.residency(B) is Residency.UNLOADING
    await fleet.loader.wait("h0:11434")
    assert at_load[0] == set()
    assert fleet.residency(B) is Residency.INSTALLED
    assert evictions(fleet) == (1, 1)


def evictions(fleet):
    counted = fleet.metrics.registry.get_sample_value("balancer_model_evictions_total")
    return counted, fleet.fleet.counters.eviction_count


@virtually
async def test_who_had_to_go_for_a_load_that_failed_has_gone_all_the_same():
    fleet, server = await a_fleet()
    server.hold(B)
    await fleet.list()
    server.disturb = failing("load", FailureKind.SERVER_ERROR)
    await fleet.load(A, evicted=(B,))
    assert fleet.residency(B) is Residency.INSTALLED
    assert evictions(fleet) == (1, 1)


@virtually
async def test_nobody_goes_who_is_in_use():
    fleet, server = await a_fleet()
    server.hold(B)
    await fleet.list()
    fleet.occupy(B)
    assert not fleet.loader.begin(fleet.order(A, evicted=(B,)))
    assert fleet.residency(B) is Residency.WARM
    assert fleet.residency(A) is Residency.INSTALLED
    assert fleet.backend().loading_key is None
    assert server.unloads == []


@virtually
async def test_a_model_in_use_is_not_loaded_anew_for_a_larger_window():
    fleet, server = await a_fleet()
    server.hold(A)
    await fleet.list()
    fleet.occupy(A)
    assert not fleet.loader.begin(fleet.order(A, context=16_384))


class Elsewhere(SoleReplica):
    """Other replicas hold slots of some models, and load if told so."""

    shared = True
    immediate = False

    def __init__(self, *held):
        self.held = held
        self.may = True
        self.released = []

    def held_by_others(self, backend_id, model):
        return int(model in self.held)

    async def take_load(self, backend_id, model):
        await asyncio.sleep(0.001)
        return "load" if self.may else None

    async def take(self, backend_id, model, slots):
        return "slot"

    def release(self, token):
        if token == "load":
            self.released.append(token)


@virtually
async def test_nobody_goes_whom_another_replica_uses():
    fleet, server = await a_fleet(reservations=Elsewhere(B))
    server.hold(B)
    await fleet.list()
    assert not fleet.loader.begin(fleet.order(A, evicted=(B,)))


@virtually
async def test_where_another_replica_loads_nothing_is_loaded_and_nobody_is_blamed():
    elsewhere = Elsewhere()
    elsewhere.may = False
    fleet, server = await a_fleet(reservations=elsewhere)
    result = await fleet.load(A)
    assert isinstance(result, NotLoaded)
    assert fleet.residency(A) is Residency.INSTALLED
    assert fleet.state(A).load_barred_until > fleet.clock.monotonic()
    assert fleet.backend().failure_count == 0
    assert server.loads == elsewhere.released == []
    elsewhere.may = True
    assert isinstance(await fleet.load(A), Loaded)
    assert elsewhere.released == ["load"]


@virtually
async def test_a_victim_that_does_not_go_ends_the_load():
    fleet, server = await a_fleet(limits=LoadLimits(unload=3.0))
    server.hold(B)
    server.busy_names.add(B)
    await fleet.list()
    result = await fleet.load(A, evicted=(B,))
    assert isinstance(result, NotLoaded)
    assert server.loads == []
    assert fleet.residency(B) is Residency.WARM
    assert fleet.residency(A) is Residency.INSTALLED
    assert evictions(fleet) == (0, 0)


@virtually
async def test_each_failed_load_bars_the_model_for_longer_and_sends_those_who_wait_elsewhere():
    fleet, server = await a_fleet()
    told = []
    fleet.loader.load_failed = lambda *told_of: told.append(told_of)
    server.disturb = failing("load", FailureKind.SERVER_ERROR, "out of memory")
    bars = []
    for _ in range(9):
        await fleet.load(A, context=0)
        bars.append(fleet.state(A).load_barred_until - fleet.clock.monotonic())
    assert bars == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert told == [(A, "h0:11434", "out of memory")] * 9
    assert not takes_requests(fleet.backend().standing)
    server.disturb = quietly
    await fleet.load(A, context=0)
    assert fleet.state(A).load_failure_count == 0


def failing(call_name, kind, message="failed"):
    async def disturb(call):
        await asyncio.sleep(0)
        if call == call_name:
            raise AttemptFailed(kind, message)

    return disturb


async def quietly(call):
    await asyncio.sleep(0)


@virtually
async def test_a_window_that_does_not_fit_leaves_the_smaller_one_to_all_others():
    fleet, server = await a_fleet()
    server.disturb = failing("load", FailureKind.SERVER_ERROR)
    told = []
    fleet.loader.load_failed = lambda *told_of: told.append(told_of)
    await fleet.load(A, context=16_384)
    assert fleet.state(A).maximum_context_token_count == 4096
    assert fleet.state(A).load_barred_until == -math.inf
    assert told == []
    await fleet.load(A, context=4096)
    assert fleet.state(A).load_failure_count == 1


@virtually
async def test_a_model_deleted_during_its_load_is_forgotten():
    fleet, server = await a_fleet()
    assert fleet.loader.begin(fleet.order(A))
    del server.installed[A]
    result = await fleet.loader.wait("h0:11434")
    assert isinstance(result, AttemptFailed)
    assert A not in fleet.backend().models
    assert fleet.backend().loading_key is None


@virtually
async def test_a_model_that_is_not_there_after_its_load_is_not_loaded_over_and_over():
    fleet, server = await a_fleet()

    async def disturb(call):
        await asyncio.sleep(0)
        if call == "loaded":
            server.memory.clear()

    server.disturb = disturb
    await fleet.load(A)
    assert fleet.residency(A) is Residency.INSTALLED
    assert fleet.state(A).load_barred_until > fleet.clock.monotonic()


@virtually
async def test_two_models_of_the_same_weights_share_what_is_loaded_under_one_name():
    fleet, server = await a_fleet()
    await fleet.load(A)

    async def disturb(call):
        await asyncio.sleep(0)
        # The server shows the first name only.
        server.memory.pop(B, None)

    server.disturb = disturb
    await fleet.load(B)
    await fleet.list()
    assert fleet.residency(A) is fleet.residency(B) is Residency.WARM
    server.memory.clear()
    await fleet.list()
    assert fleet.residency(A) is fleet.residency(B) is Residency.INSTALLED


@virtually
async def test_what_was_loaded_of_an_older_version_is_not_the_new_one():
    fleet, _ = await a_fleet()
    await fleet.load(A)
    await fleet.replace(A, digest="b" * 64)
    assert fleet.residency(A) is Residency.INSTALLED
    await fleet.load(A)
    assert fleet.residency(A) is Residency.WARM


@virtually
async def test_a_new_version_of_the_same_weights_is_loaded_once():
    fleet, server = await a_fleet()
    await fleet.load(A)
    await fleet.replace(A, digest="b" * 64)

    async def disturb(call):
        await asyncio.sleep(0)
        server.memory[A] = type(server.memory[A])(name=A, digest="a" * 64, context_token_count=4096)

    server.disturb = disturb
    await fleet.load(A)
    await fleet.list()
    assert fleet.residency(A) is Residency.WARM


@virtually
async def test_a_listing_asked_for_before_a_load_ended_does_not_undo_it():
    fleet, server = await a_fleet()
    assert fleet.loader.begin(fleet.order(A))
    asked_at = fleet.clock.monotonic()
    listed = await server.loaded(2.0)
    await fleet.loader.wait("h0:11434")
    fleet.fleet.note_loaded(fleet.backend(), listed, asked_at)
    assert fleet.residency(A) is Residency.WARM


@virtually
async def test_the_waiter_may_leave_and_the_load_goes_on():
    fleet, _ = await a_fleet()
    assert fleet.loader.begin(fleet.order(A))
    waiter = asyncio.create_task(fleet.loader.wait("h0:11434"))
    await asyncio.sleep(1)
    waiter.cancel()
    await fleet.loader.wait("h0:11434")
    assert fleet.residency(A) is Residency.WARM


@pytest.mark.parametrize("after_seconds", [None, 0, 0.05, 1, 5])
def test_a_load_that_is_given_up_leaves_nothing_behind(after_seconds):
    async def test():
        fleet, server = await a_fleet()
        server.hold(B)
        await fleet.list()

        async def disturb(call):
            await asyncio.sleep(0.1)

        server.disturb = disturb
        assert fleet.loader.begin(fleet.order(A, evicted=(B,)))
        waiter = None
        if after_seconds is not None:
            waiter = asyncio.create_task(fleet.loader.wait("h0:11434"))
            await asyncio.sleep(after_seconds)
        await fleet.loader.close()
        assert waiter is None or isinstance(await waiter, NotLoaded)
        assert fleet.backend().loading_key is None
        assert settled(fleet)
        assert not fleet.loader.begin(fleet.order(A))

    run_virtually(test())


def settled(fleet):
    return all(
        state.residency in (Residency.WARM, Residency.INSTALLED)
        for backend in fleet.fleet.backends.values()
        for state in (backend.models or {}).values()
    )


# Unloading.


@virtually
async def test_an_idle_model_is_unloaded_and_gone():
    fleet, server = await a_fleet()
    server.hold(A)
    await fleet.list()
    assert await fleet.loader.unloader.unload(fleet.backend(), fleet.state(A))
    assert fleet.residency(A) is Residency.INSTALLED
    assert server.memory == {}


@virtually
async def test_a_busy_model_gets_nothing_more_and_goes_when_its_requests_have_ended():
    fleet, server = await a_fleet()
    server.hold(A)
    await fleet.list()
    occupancy = fleet.occupy(A)
    assert not await fleet.loader.unloader.unload(fleet.backend(), fleet.state(A))
    await asyncio.sleep(100)
    assert server.unloads == []
    assert fleet.residency(A) is Residency.UNLOADING
    # It is not loaded in the meantime either.
    assert not fleet.loader.begin(fleet.order(A))
    fleet.fleet.vacate(occupancy)
    await asyncio.sleep(1)
    assert server.unloads == [A]
    assert fleet.residency(A) is Residency.INSTALLED


@virtually
async def test_a_load_waits_for_the_room_of_a_model_that_is_told_to_go():
    fleet, server = await a_fleet()
    server.hold(B)
    await fleet.list()
    occupancy = fleet.occupy(B)
    await fleet.loader.unloader.unload(fleet.backend(), fleet.state(B))
    assert fleet.loader.begin(fleet.order(A))
    await asyncio.sleep(50)
    assert server.loads == []
    fleet.fleet.vacate(occupancy)
    assert isinstance(await fleet.loader.wait("h0:11434"), Loaded)


@virtually
async def test_a_model_that_is_being_loaded_goes_when_it_is_there():
    fleet, server = await a_fleet()
    assert fleet.loader.begin(fleet.order(A))
    assert not await fleet.loader.unloader.unload(fleet.backend(), fleet.state(A))
    await asyncio.sleep(10)
    assert len(server.loads) == 1
    assert server.unloads == [A]
    assert fleet.residency(A) is Residency.INSTALLED


@virtually
async def test_a_backend_that_does_not_unload_says_so_and_keeps_the_model():
    fleet, server = await a_fleet()
    server.hold(A)
    await fleet.list()
    server.disturb = failing("unload", FailureKind.SERVER_ERROR)
    with pytest.raises(AttemptFailed):
        await fleet.loader.unloader.unload(fleet.backend(), fleet.state(A))
    assert fleet.residency(A) is Residency.WARM


# Renewing.


@virtually
async def test_a_renewal_keeps_the_window_and_is_no_load():
    fleet, server = await a_fleet()
    server.hold(A, context=8192, expires_in=20)
    await fleet.list()
    assert fleet.loader.renew(fleet.backend(), fleet.state(A))
    assert fleet.residency(A) is Residency.WARM
    await fleet.loader.wait("h0:11434")
    await fleet.list()
    assert server.loads == [(A, "1800s", 8192)]
    assert fleet.state(A).expires_at == pytest.approx(server.clock.now() + 1800, abs=1)
    assert fleet.backend().loading_key is None


# All at once.

KINDS = [kind for kind in FailureKind if kind is not FailureKind.REJECTED]


@settings(max_examples=150)
@given(st.integers(0, 2**32), st.floats(0, 0.6))
# A model that is being unloaded loses the first of its names.
@example(11854, 0.5)
def test_whatever_fails_or_is_given_up_at_whatever_point_all_is_settled_in_the_end(seed, ratio):
    run_virtually(chaos(Random(seed), ratio))


async def chaos(rng, ratio):
    servers = [
        MemoryServer(a_chat_model(A), a_chat_model(B), an_embedding_model(C)) for _ in range(2)
    ]
    elsewhere = Elsewhere()
    fleet = FleetUnderTest(
        *servers,
        reservations=elsewhere if rng.random() < 0.3 else None,
        limits=LoadLimits(unload=2.0),
    )
    await fleet.check()

    async def disturb(call):
        await asyncio.sleep(rng.choice([0, 0, 0.01, 1, 7]))
        if rng.random() < ratio:
            raise AttemptFailed(rng.choice(KINDS), "as the test wants it")

    for server in servers:
        server.load_seconds = 2.0
        server.disturb = disturb
    pending: set[asyncio.Task] = set()
    occupied = []
    for _ in range(rng.randint(5, 60)):
        await asyncio.sleep(rng.choice([0, 0, 0.005, 0.3, 2, 4]))
        elsewhere.may = rng.random() < 0.8
        act(rng, fleet, pending, occupied)
        check_loading(fleet)
    for occupancy in occupied:
        fleet.fleet.vacate(occupancy)
    for task in pending:
        if rng.random() < 0.5:
            task.cancel()
    if rng.random() < 0.5:
        await asyncio.sleep(600)
    await fleet.loader.close()
    if pending:
        await asyncio.wait(pending)
    assert settled(fleet)
    assert all(backend.loading_key is None for backend in fleet.fleet.backends.values())
    assert asyncio.all_tasks() == {asyncio.current_task()}


def act(rng, fleet, pending, occupied):
    """Does something to the fleet, as planner, operator or server would."""
    index = rng.randrange(2)
    backend, server = fleet.backend(index), fleet.servers[f"h{index}:11434"]
    key = rng.choice(sorted(backend.models) or [A])
    state = backend.models.get(key)
    match rng.randrange(9):
        case 0 | 1 | 2:
            others = tuple(each for each in backend.models if rng.random() < 0.5)
            before = {each: backend.models[each].residency for each in others}
            if fleet.loader.begin(fleet.order(key, index, evicted=others)):
                for each in others:
                    assert (
                        before[each] is not Residency.WARM or not backend.models[each].occupancies
                    )
        case 3 if state is not None:
            pending.add(asyncio.create_task(unload(fleet, backend, state)))
        case 4 if state is not None:
            fleet.loader.renew(backend, state)
        case 5 if state is not None and state.residency is Residency.WARM:
            occupied.append(fleet.occupy(key, index))
        case 6 if occupied:
            fleet.fleet.vacate(occupied.pop(rng.randrange(len(occupied))))
        case 7:
            # Of some versions of the models, two are the same.
            digest = rng.choice(["", "a" * 64, "b" * 64])
            models = [each for each in server.installed.values() if rng.random() < 0.9]
            server.installed = {
                each.name: a_chat_model(each.name, **({"digest": digest} if digest else {}))
                for each in models
            } or server.installed
            backend.take_installed(tuple(server.installed.values()), 1)
        case 8:
            pending.add(asyncio.create_task(abandon_or_list(rng, fleet, index)))


async def unload(fleet, backend, state):
    with contextlib.suppress(AttemptFailed):
        await fleet.loader.unloader.unload(backend, state)


async def abandon_or_list(rng, fleet, index):
    backend, server = fleet.backend(index), fleet.servers[f"h{index}:11434"]
    if rng.random() < 0.3:
        await fleet.loader.abandon(backend.id)
        return
    asked_at = fleet.clock.monotonic()
    try:
        listed = await server.loaded(2.0)
    except AttemptFailed:
        return
    fleet.fleet.note_loaded(backend, listed, asked_at)


def check_loading(fleet):
    """A model is being loaded or unloaded only while somebody is at it."""
    for backend in fleet.fleet.backends.values():
        loading = [each for each in backend.states() if each.residency is Residency.LOADING]
        # It may have lost the name meanwhile under which its load began.
        assert len(loading) <= (backend.loading_key is not None)
