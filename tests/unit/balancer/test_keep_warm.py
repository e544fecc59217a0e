"""What is kept in memory, in virtual time."""

import asyncio
import contextlib
import itertools

import pytest

from services.balancer.core.failures import AttemptFailed, FailureKind
from services.balancer.core.snapshot import Residency
from services.balancer.core.standing import Signal
from services.balancer.keep_warm import WarmPool
from tests.kit.balancer import FleetUnderTest, MemoryServer, a_chat_model, an_embedding_model
from tests.kit.virtual_time import run_virtually

CHAT, CODE, EMBED, OTHER = "chat:latest", "code:latest", "embed:latest", "other:latest"
MODELS = (a_chat_model(CHAT), a_chat_model(CODE), an_embedding_model(EMBED))


def virtually(test):
    """Runs a test in virtual time."""

    def run():
        run_virtually(test())

    run.__name__ = test.__name__
    return run


async def a_pool(*servers, pinned=(), query="", keep_alive=1800.0, models=MODELS):
    servers = servers or (MemoryServer(*models),)
    kit = FleetUnderTest(*servers, query=query)
    pool = WarmPool(
        kit.fleet,
        kit.loader,
        clock=kit.clock,
        pinned_models=pinned,
        keep_alive_seconds=keep_alive,
    )
    await kit.check()
    return kit, pool


async def run_pool(kit, pool, seconds):
    """Runs the pool, and the listings beside it, for some time."""

    async def list_again_and_again():
        while True:
            await asyncio.sleep(1.5)
            await kit.list()

    tasks = [asyncio.create_task(pool.run()), asyncio.create_task(list_again_and_again())]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        for task in tasks:
            await task


def use(kit, key, index=0):
    """Has a request come and go."""
    kit.fleet.vacate(kit.occupy(key, index))


@virtually
async def test_an_embedding_model_in_use_is_loaded_for_ever_wherever_it_fits():
    servers = MemoryServer(*MODELS), MemoryServer(*MODELS)
    kit, pool = await a_pool(*servers)
    use(kit, EMBED)
    await run_pool(kit, pool, 20)
    for index, server in enumerate(servers):
        assert server.loads == [(EMBED, -1, None)]
        assert kit.state(EMBED, index).pinned
        assert not kit.state(CHAT, index).pinned


@virtually
async def test_an_embedding_model_that_nobody_asks_for_is_left_alone():
    kit, pool = await a_pool()
    await run_pool(kit, pool, 600)
    assert kit.servers["h0:11434"].loads == []


@virtually
async def test_an_hour_after_its_last_use_an_embedding_model_is_let_go():
    kit, pool = await a_pool()
    server = kit.servers["h0:11434"]
    use(kit, EMBED)
    await run_pool(kit, pool, 3700)
    assert not kit.state(EMBED).pinned
    # What it was loaded for does not count as use, and what was to last for ever is taken back.
    assert server.loads == [(EMBED, -1, None), (EMBED, "1800s", None)]


@virtually
async def test_nothing_is_pinned_where_it_would_be_the_only_model():
    kit, pool = await a_pool(query="?models=1", pinned=(CHAT,))
    kit.servers["h0:11434"].hold(EMBED)
    await kit.list()
    use(kit, EMBED)
    await run_pool(kit, pool, 300)
    assert not kit.state(EMBED).pinned
    assert not kit.state(CHAT).pinned


@virtually
async def test_an_only_model_is_pinned_where_there_is_room_for_one():
    kit, pool = await a_pool(query="?models=1", pinned=(CHAT,), models=(a_chat_model(CHAT),))
    await run_pool(kit, pool, 20)
    assert kit.state(CHAT).pinned
    assert kit.servers["h0:11434"].loads == [(CHAT, -1, 4096)]


@virtually
async def test_a_pin_is_given_up_where_it_does_not_fit_beside_what_is_in_use():
    kit, pool = await a_pool()
    kit.servers["h0:11434"].hold(EMBED)
    await kit.list()
    use(kit, EMBED)
    pool.look()
    assert kit.state(EMBED).pinned
    backend = kit.backend()
    backend.room = type(backend.room)(model_limit=3, overflow_bytes=1100)
    pool.look()
    assert not kit.state(EMBED).pinned


@virtually
async def test_named_models_are_loaded_with_the_usual_window_and_leave_room_for_another():
    kit, pool = await a_pool(
        pinned=("chat", "code", "other"), models=(*MODELS, a_chat_model(OTHER))
    )
    await run_pool(kit, pool, 60)
    assert [kit.state(each).pinned for each in (CHAT, CODE, OTHER)] == [True, True, False]
    assert kit.servers["h0:11434"].loads == [(CHAT, -1, 4096), (CODE, -1, 4096)]


@virtually
async def test_pins_are_loaded_again_after_a_restart_of_the_server():
    kit, pool = await a_pool(pinned=(CHAT,))
    server = kit.servers["h0:11434"]
    await run_pool_until_warm_then_restart(kit, pool, server)
    assert len(server.loads) == 2
    assert CHAT in server.memory


async def run_pool_until_warm_then_restart(kit, pool, server):
    async def restart():
        await asyncio.sleep(100)
        assert CHAT in server.memory
        server.memory.clear()

    restarting = asyncio.create_task(restart())
    await run_pool(kit, pool, 130)
    await restarting


@virtually
async def test_a_pin_makes_room_by_what_rests_and_never_by_what_is_busy_pinned_or_just_used():
    models = (*MODELS, a_chat_model(OTHER))
    kit, pool = await a_pool(pinned=(CHAT,), models=models, query="?models=2")
    server = kit.servers["h0:11434"]
    server.hold(CODE)
    server.hold(OTHER)
    await kit.list()
    occupancy = kit.occupy(CODE)
    use(kit, OTHER)
    pool.look()
    await asyncio.sleep(30)
    pool.look()
    assert server.unloads == []
    await asyncio.sleep(31)
    pool.look()
    await kit.loader.wait("h0:11434")
    assert server.unloads == [OTHER]
    assert set(server.memory) == {CODE, CHAT}
    kit.fleet.vacate(occupancy)


@virtually
async def test_a_server_that_drops_a_pin_again_and_again_is_asked_once_a_minute():
    kit, pool = await a_pool(pinned=(CHAT,))
    server = kit.servers["h0:11434"]

    async def disturb(call):
        await asyncio.sleep(0)
        if call == "loaded" and server.loading_count == 0:
            server.memory.pop(CHAT, None)

    server.disturb = disturb
    await run_pool(kit, pool, 600)
    assert 2 <= len(server.loads) <= 10


@virtually
async def test_a_load_that_fails_is_not_repeated_before_its_bar_has_ended():
    kit, pool = await a_pool(pinned=(CHAT,))
    server = kit.servers["h0:11434"]

    async def disturb(call):
        await asyncio.sleep(0)
        if call == "load":
            raise AttemptFailed(FailureKind.BUSY, "busy")

    server.disturb = disturb
    times = []
    for _ in range(200):
        pool.look()
        await asyncio.sleep(5)
        while len(times) < len(server.loads):
            times.append(kit.clock.monotonic())
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert gaps
    assert min(gaps) >= 60


@virtually
async def test_nothing_is_loaded_on_a_backend_that_is_out_or_drained():
    kit, pool = await a_pool(pinned=(CHAT,))
    kit.fleet.signal(kit.backend(), Signal.DRAINED)
    await run_pool(kit, pool, 60)
    assert kit.servers["h0:11434"].loads == []


@virtually
async def test_another_version_than_most_backends_have_is_not_pinned():
    chats = [a_chat_model(CHAT, digest=each * 64) for each in "aab"]
    servers = [MemoryServer(each, MODELS[1]) for each in chats]
    kit, pool = await a_pool(*servers, pinned=(CHAT,))
    await run_pool(kit, pool, 30)
    assert [len(server.loads) for server in servers] == [1, 1, 0]


@virtually
async def test_a_model_that_somebody_lets_expire_is_renewed_while_it_is_wanted():
    kit, pool = await a_pool()
    server = kit.servers["h0:11434"]
    server.hold(CHAT, context=8192, expires_in=120)
    await kit.list()
    use(kit, CHAT)
    await run_pool(kit, pool, 55)
    assert server.loads == []
    await run_pool(kit, pool, 20)
    assert server.loads == [(CHAT, "1800s", 8192)]


@virtually
async def test_a_model_that_nobody_asked_for_lately_is_let_go():
    kit, pool = await a_pool()
    server = kit.servers["h0:11434"]
    server.hold(CHAT, expires_in=50)
    await kit.list()
    await run_pool(kit, pool, 40)
    assert server.loads == []


@virtually
async def test_a_busy_model_is_not_renewed_for_what_it_shows():
    kit, pool = await a_pool()
    server = kit.servers["h0:11434"]
    server.hold(CHAT, expires_in=10)
    await kit.list()
    kit.occupy(CHAT)
    await run_pool(kit, pool, 30)
    assert server.loads == []


@virtually
async def test_a_pinned_model_that_was_loaded_for_a_time_is_told_to_stay():
    kit, pool = await a_pool(pinned=(CHAT,))
    server = kit.servers["h0:11434"]
    server.hold(CHAT, context=4096, expires_in=300)
    await kit.list()
    await run_pool(kit, pool, 200)
    assert server.loads == [(CHAT, -1, 4096)]


@virtually
async def test_a_model_that_somebody_else_keeps_for_ever_is_left_alone():
    kit, pool = await a_pool()
    server = kit.servers["h0:11434"]
    server.hold(CHAT, expires_in=1e10)
    await kit.list()
    await run_pool(kit, pool, 200)
    assert server.loads == []


@virtually
async def test_a_pinned_model_that_an_operator_has_unloaded_stays_away_until_it_is_asked_for():
    kit, pool = await a_pool(pinned=(CHAT,))
    server = kit.servers["h0:11434"]
    server.hold(CHAT, expires_in=1e10)
    await kit.list()
    kit.state(CHAT).dismissed_at = kit.clock.monotonic()
    await kit.loader.unloader.unload(kit.backend(), kit.state(CHAT))
    for _ in range(30):
        pool.look()
        await asyncio.sleep(5)
    assert server.loads == []
    use(kit, CHAT)
    pool.look()
    await kit.loader.wait("h0:11434")
    assert kit.residency(CHAT) is Residency.WARM


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_no_pin_leaves_a_backend_without_room_for_another_model(limit):
    async def test():
        models = (*MODELS, a_chat_model(OTHER))
        kit, pool = await a_pool(
            pinned=(CHAT, CODE, OTHER), models=models, query=f"?models={limit}"
        )
        use(kit, EMBED)
        pool.look()
        pinned = [each for each in kit.backend().models.values() if each.pinned]
        assert len(pinned) == limit - 1

    run_virtually(test())
