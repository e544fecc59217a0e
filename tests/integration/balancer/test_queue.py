"""The one queue: who waits, in which order, for how long, and what becomes of those who leave."""

import asyncio

import pytest
from google.protobuf.duration_pb2 import Duration

from pannier.balancer.v1 import balancer_service_pb2 as pb
from services.common.errors import StatusCode
from tests.kit.generations import generation, kinds, read, unrelated
from tests.kit.rpc import error_of
from tests.kit.standin import running_standins

SYSTEM, INTERACTIVE, BATCH = pb.PRIORITY_SYSTEM, pb.PRIORITY_INTERACTIVE, pb.PRIORITY_BATCH


@pytest.fixture
async def server(scripted):
    """A backend with one model and one slot, whose answers the test gives."""
    server = await scripted()
    server.has("m:latest")
    return server


@pytest.fixture
def works(server):
    return server.hold()


class Callers:
    """Requests that are read in the background.

    Args:
        balancer: Who is asked.
    """

    def __init__(self, balancer) -> None:
        self._balancer = balancer
        self._count = 0
        self.tasks = {}

    async def ask(self, name, *, tenant="", limit_seconds=None, **routing):
        """Asks, and returns when the request is in the queue, or in its slot."""
        metadata = (("x-pannier-tenant-id", tenant),) if tenant else ()
        request = generation(name, "m", routing=pb.RoutingOptions(**routing))
        call = self._balancer.stub.Generate(request, metadata=metadata, timeout=limit_seconds)
        self._count += 1
        self.tasks[name] = asyncio.create_task(read(call))
        await self._balancer.until(lambda stats: stats.fleet.request_count >= self._count)
        return call

    async def result(self, name):
        return await self.tasks[name]


@pytest.fixture
async def run_callers():
    """Makes callers that are gone at the end of the test."""
    made = []

    def run(balancer):
        made.append(Callers(balancer))
        return made[-1]

    yield run
    for callers in made:
        for task in callers.tasks.values():
            task.cancel()
        if callers.tasks:
            await asyncio.wait(callers.tasks.values())


async def served_order(works, count):
    """Answers so many requests one after another, and returns their prompts."""
    order = []
    for _ in range(count):
        work = await works.get()
        assert works.empty()
        order.append(work.body["prompt"])
        work.say("x")
        work.end()
    return order


def waiting(stats):
    return {each.priority: each.waiting_count for each in stats.fleet.queues}


async def test_a_model_is_given_as_many_requests_as_it_has_slots(
    run_balancer, run_callers, server, works
):
    balancer = await run_balancer(f"{server.url}?slots=2")
    callers = run_callers(balancer)
    for name in "abcde":
        await callers.ask(name)
    first, second = await works.get(), await works.get()
    stats = await balancer.stats()
    assert works.empty()
    assert stats.fleet.in_flight_count == 5
    assert stats.backends[0].in_flight_count == 2
    assert waiting(stats) == {SYSTEM: 0, INTERACTIVE: 3, BATCH: 0}
    queue = next(each for each in stats.fleet.queues if each.priority == INTERACTIVE)
    assert queue.HasField("longest_wait")
    first.end()
    third = await works.get()
    assert (await balancer.backend(server.backend_id)).in_flight_count == 2
    second.end()
    third.end()
    for _ in range(2):
        (await works.get()).end()
    for name in "abcde":
        events, error = await callers.result(name)
        assert error is None
        assert kinds(events) == ["started", "completed"]
    waited = [(await callers.result(name))[0][0].started.queue_wait for name in "ae"]
    assert waited[0].ToSeconds() == 0
    assert waited[0].ToNanoseconds() < waited[1].ToNanoseconds()


async def test_higher_classes_go_first(run_balancer, run_callers, server, works):
    balancer = await run_balancer(server.url)
    callers = run_callers(balancer)
    await callers.ask("running")
    for name, priority in [("batch", BATCH), ("interactive", INTERACTIVE), ("system", SYSTEM)]:
        await callers.ask(name, priority=priority)
    assert await served_order(works, 4) == ["running", "system", "interactive", "batch"]


async def test_inside_a_tenant_the_earliest_deadline_goes_first(
    run_balancer, run_callers, server, works
):
    balancer = await run_balancer(server.url)
    callers = run_callers(balancer)
    await callers.ask("running")
    for name, limit_seconds in [("late", 60.0), ("soon", 20.0), ("later", 90.0)]:
        await callers.ask(name, limit_seconds=limit_seconds)
    assert await served_order(works, 4) == ["running", "soon", "late", "later"]


async def test_a_tenant_that_floods_the_queue_does_not_keep_another_from_its_share(
    run_balancer, run_callers, server, works
):
    balancer = await run_balancer(server.url)
    callers = run_callers(balancer)
    for number in range(8):
        await callers.ask(f"flood {number}", tenant="flooding")
    for number in range(2):
        await callers.ask(f"quiet {number}", tenant="quiet")
    order = await served_order(works, 10)
    # The first was under way before the other tenant came; from then on they take turns.
    assert {order.index("quiet 0"), order.index("quiet 1")} <= {1, 2, 3, 4}


async def test_a_slot_is_left_to_a_tenant_that_has_less_than_its_share(
    run_balancer, run_callers, server, works
):
    balancer = await run_balancer(f"{server.url}?slots=2")
    callers = run_callers(balancer)
    for number in range(4):
        await callers.ask(f"flood {number}", tenant="flooding")
    flood, _ = await works.get(), await works.get()
    await callers.ask("quiet 0", tenant="quiet")
    flood.end(eval_count=500)
    quiet = await works.get()
    assert quiet.body["prompt"] == "quiet 0"
    # Long enough to be known.
    await asyncio.sleep(0.5)
    quiet.end()
    await callers.result("quiet 0")
    # Long enough for the queue to be looked at some times.
    await asyncio.sleep(0.5)
    assert works.empty()
    assert waiting(await balancer.stats())[INTERACTIVE] == 2
    await callers.ask("quiet 1", tenant="quiet")
    assert (await works.get()).body["prompt"] == "quiet 1"


async def test_tokens_count_for_a_tenant_although_it_leaves_before_the_end(
    run_balancer, run_callers, server, works
):
    balancer = await run_balancer(server.url)
    callers = run_callers(balancer)
    leaving = await callers.ask("leaving", tenant="a")
    work = await works.get()
    for prompt, tenant in [("first of b", "b"), ("of a", "a"), ("last of b", "b")]:
        await callers.ask(prompt, tenant=tenant)
    for _ in range(40):
        work.say("token ")
        # What comes together counts as one.
        await asyncio.sleep(0.005)
    leaving.cancel()
    assert await served_order(works, 3) == ["first of b", "last of b", "of a"]


async def test_who_leaves_the_queue_costs_nobody_anything(run_balancer, run_callers, server, works):
    balancer = await run_balancer(server.url)
    callers = run_callers(balancer)
    await callers.ask("running")
    leaving = await callers.ask("leaving")
    await callers.ask("staying")
    leaving.cancel()
    stats = await balancer.until(lambda stats: stats.fleet.cancelled_count == 1)
    assert stats.fleet.in_flight_count == 2
    assert await served_order(works, 2) == ["running", "staying"]
    await callers.result("staying")
    assert [each["prompt"] for each in server.bodies] == ["running", "staying"]
    assert (await balancer.stats()).fleet.failure_count == 0


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_again(
    run_balancer, run_callers, server, works
):
    balancer = await run_balancer(server.url, queue_limit_interactive=2)
    callers = run_callers(balancer)
    for name in ("running", "first", "second"):
        await callers.ask(name)
    error = await error_of(balancer.stub.Generate(generation("third", "m")).read())
    assert error.status_code is StatusCode.RESOURCE_EXHAUSTED
    assert error.error_reason == "QUEUE_FULL"
    assert error.metadata["priority"] == "interactive"
    assert error.metadata["waiting_count"] == "2"
    assert error.retry_delay_seconds >= 0.1
    decision = await explain(balancer, error.metadata["decision_id"])
    assert decision.outcome == pb.ROUTING_OUTCOME_REFUSED
    assert decision.queue_position == 2
    assert decision.backend_id == server.backend_id
    stats = await balancer.stats()
    assert stats.fleet.refused_count == 1
    assert balancer.value("balancer_outcomes_total", outcome="refused") == 1
    assert await served_order(works, 3) == ["running", "first", "second"]


async def test_who_is_refused_is_told_of_the_wait_for_the_model_that_it_asks_for(
    run_balancer, run_callers, scripted
):
    servers = []
    for name, size_bytes in [("m:latest", 40_000_000_000), ("n:latest", 1_000_000_000)]:
        server = await scripted()
        server.has(name, size_bytes=size_bytes)
        server.hold()
        servers.append(server)
    balancer = await run_balancer(*(each.url for each in servers), queue_limit_interactive=3)
    callers = run_callers(balancer)
    await callers.ask("running")
    running = asyncio.create_task(read(balancer.stub.Generate(generation("running too", "n"))))
    await balancer.until(lambda stats: all(each.in_flight_count for each in stats.backends))
    for name in ("first", "second", "third"):
        await callers.ask(name)
    for model in ("n", "m"):
        request = generation("fourth", model)
        explained = (await balancer.stub.Explain(pb.ExplainRequest(generate=request))).decision
        predicted_seconds = explained.predicted_first_token.ToTimedelta().total_seconds()
        error = await error_of(balancer.stub.Generate(request).read())
        assert error.error_reason == "QUEUE_FULL"
        # What runs goes on meanwhile, and waits grow shorter.
        assert error.retry_delay_seconds == pytest.approx(predicted_seconds, rel=0.2, abs=4.0)
        assert (predicted_seconds > 20.0) == (model == "m")
    running.cancel()
    await asyncio.wait([running])


async def test_batch_work_is_dropped_first_and_the_youngest_of_it(
    run_balancer, run_callers, server, works
):
    balancer = await run_balancer(server.url, queue_limit_interactive=1, queue_limit_batch=2)
    callers = run_callers(balancer)
    await callers.ask("running")
    await callers.ask("old batch", priority=BATCH)
    await callers.ask("young batch", priority=BATCH)
    await callers.ask("first")
    await callers.ask("second")
    events, error = await callers.result("young batch")
    assert events == []
    assert error.error_reason == "QUEUE_FULL"
    assert error.metadata["priority"] == "batch"
    order = await served_order(works, 4)
    assert order == ["running", "first", "second", "old batch"]


async def test_who_accepts_no_wait_is_refused_where_one_is_predicted(
    run_balancer, run_callers, server, works
):
    balancer = await run_balancer(server.url)
    callers = run_callers(balancer)
    patient = Duration(seconds=60)
    await callers.ask("running", maximum_wait=patient)
    await works.get()
    await callers.ask("patient", maximum_wait=patient)
    impatient = Duration(nanos=1000)
    _, error = await read(
        balancer.stub.Generate(generation("impatient", "m", routing={"maximum_wait": impatient}))
    )
    assert error.error_reason == "QUEUE_FULL"
    assert error.retry_delay_seconds == pytest.approx(
        float(error.metadata["predicted_wait_seconds"]), abs=0.06
    )
    assert waiting(await balancer.stats())[INTERACTIVE] == 1


async def test_a_deadline_that_cannot_be_met_is_refused_before_it_has_passed(
    run_balancer, run_callers, scripted
):
    server = await scripted()
    # Of the usual size, so of the usual speed: an answer is thought to take seconds.
    server.has("m:latest", size_bytes=5_000_000_000)
    works = server.hold()
    balancer = await run_balancer(server.url)
    callers = run_callers(balancer)
    await callers.ask("running")
    await works.get()
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    error = await error_of(balancer.stub.Generate(generation("late", "m"), timeout=1.0).read())
    assert loop.time() - began_at < 0.9
    assert error.status_code is StatusCode.DEADLINE_EXCEEDED
    assert error.error_reason == "DEADLINE_UNREACHABLE"
    predicted = float(error.metadata["predicted_wait_seconds"])
    assert predicted > float(error.metadata["remaining_seconds"])
    stats = await balancer.stats()
    assert stats.fleet.unreachable_deadline_count == 1
    assert stats.fleet.in_flight_count == 1
    assert balancer.value("balancer_outcomes_total", outcome="deadline") == 1


async def test_a_deadline_that_cannot_be_met_behind_a_hundred_others_is_not_waited_for(
    run_balancer, run_callers, scripted
):
    server = await scripted()
    server.has("m:latest", size_bytes=5_000_000_000)
    works = server.hold()
    balancer = await run_balancer(server.url)
    callers = run_callers(balancer)
    for number in range(101):
        await callers.ask(unrelated(number))
    await works.get()
    request = generation("late", "m", routing=pb.RoutingOptions(priority=BATCH))
    error = await error_of(balancer.stub.Generate(request, timeout=30.0).read())
    assert error.error_reason == "DEADLINE_UNREACHABLE"
    # It was told so at once, and not when its time was nearly over.
    assert float(error.metadata["remaining_seconds"]) > 20.0
    assert float(error.metadata["predicted_wait_seconds"]) > 100.0
    decision = await explain(balancer, error.metadata["decision_id"])
    assert decision.outcome == pb.ROUTING_OUTCOME_REFUSED
    assert waiting(await balancer.stats()) == {SYSTEM: 0, INTERACTIVE: 100, BATCH: 0}


async def test_a_deadline_that_passes_in_the_queue_ends_the_wait(
    run_balancer, run_callers, server, works
):
    balancer = await run_balancer(server.url)
    callers = run_callers(balancer)
    await callers.ask("running")
    work = await works.get()
    # A fast model with a short answer that is long in coming: overdue, so free any moment.
    error = await error_of(balancer.stub.Generate(generation("waits", "m"), timeout=0.4).read())
    assert error.status_code is StatusCode.DEADLINE_EXCEEDED
    stats = await balancer.until(lambda stats: stats.fleet.in_flight_count == 1)
    assert waiting(stats)[INTERACTIVE] == 0
    work.end()
    await callers.result("running")
    assert [each["prompt"] for each in server.bodies] == ["running"]


async def test_a_load_goes_on_when_who_asked_for_it_has_left_and_serves_the_next(run_balancer):
    async with running_standins(1, load_seconds=0.5) as (standin,):
        balancer = await run_balancer(standin.url)
        call = balancer.stub.Generate(generation())
        reading = asyncio.create_task(read(call))
        loading = pb.MODEL_RESIDENCY_LOADING
        await balancer.until(
            lambda stats: [each.residency for each in stats.backends[0].models] == [loading]
        )
        call.cancel()
        await asyncio.wait([reading])
        stats = await balancer.until(lambda stats: stats.fleet.in_flight_count == 0)
        assert [each.residency for each in stats.backends[0].models] == [loading]
        events, error = await read(balancer.stub.Generate(generation()))
        totals = await standin.totals()
    assert error is None
    assert events[-1].completed.timings.model_load.ToNanoseconds() > 0
    assert (totals["loads"], totals["aborted_loads"]) == (1, 0)


async def test_requests_that_wait_for_one_load_are_all_served_by_it(run_balancer):
    async with running_standins(1, load_seconds=0.3, num_parallel=4) as (standin,):
        balancer = await run_balancer(f"{standin.url}?slots=4")
        async with asyncio.TaskGroup() as group:
            calls = [
                group.create_task(read(balancer.stub.Generate(generation(unrelated(number)))))
                for number in range(6)
            ]
        totals = await standin.totals()
        stats = await balancer.stats()
    assert [call.result()[1] for call in calls] == [None] * 6
    assert totals["loads"] == 1
    assert max(totals["max_concurrent_requests"].values()) == 4
    assert stats.fleet.model_load_count == 1


async def explain(balancer, decision_id):
    return (await balancer.stub.Explain(pb.ExplainRequest(decision_id=decision_id))).decision


@pytest.mark.parametrize("waiting_count", [1, 12, 40])
async def test_a_decision_made_is_explained_as_it_was_made(
    run_balancer, run_callers, scripted, waiting_count
):
    servers = [await scripted() for _ in range(3)]
    for server in servers:
        server.has("m:latest")
        server.stream("/api/generate", b'{"response":"x","done":true,"eval_count":1}\n')
    balancer = await run_balancer(*(server.url for server in servers))
    async with asyncio.TaskGroup() as group:
        calls = [
            group.create_task(read(balancer.stub.Generate(generation(unrelated(number), "m"))))
            for number in range(3 + waiting_count)
        ]
    starts = [call.result()[0][0].started for call in calls]
    for started in starts:
        decision = await explain(balancer, started.decision_id)
        assert decision.decision_id == started.decision_id
        assert decision.outcome == pb.ROUTING_OUTCOME_DISPATCHED
        assert decision.backend_id == started.backend_id
        assert decision.reason == started.routing_reason
        chosen = next(each for each in decision.candidates if each.backend_id == started.backend_id)
        assert chosen.in_flight_count < chosen.slot_count
        for each in decision.candidates:
            assert each.cost_seconds == pytest.approx(
                each.drain_seconds
                + each.load_seconds
                + each.prefill_seconds
                + each.decode_seconds
                + each.risk_seconds
            )
    error = await error_of(balancer.stub.Explain(pb.ExplainRequest(decision_id="none")))
    assert error.error_reason == "DECISION_NOT_FOUND"


async def test_a_hypothetical_request_changes_nothing(run_balancer, run_callers, server, works):
    balancer = await run_balancer(server.url)
    callers = run_callers(balancer)
    await callers.ask("running")
    work = await works.get()
    question = pb.ExplainRequest(generate=generation("what if", "m"))
    decision = (await balancer.stub.Explain(question)).decision
    assert decision.decision_id == ""
    assert decision.outcome == pb.ROUTING_OUTCOME_HELD
    assert decision.backend_id == server.backend_id
    assert decision.candidates[0].drain_seconds > 0
    stats = await balancer.stats()
    assert stats.fleet.request_count == 1
    assert waiting(stats)[INTERACTIVE] == 0
    work.end()
    assert works.empty()


async def test_stats_are_watched_from_now_on_until_the_caller_ends_it(
    run_balancer, run_callers, server, works
):
    balancer = await run_balancer(server.url)
    callers = run_callers(balancer)
    interval = Duration(nanos=100_000_000)
    watch = balancer.stub.WatchStats(pb.WatchStatsRequest(interval=interval))
    first = await watch.read()
    assert first.stats.fleet.in_flight_count == 0
    await callers.ask("running")
    work = await works.get()
    async with asyncio.timeout(5):
        while (await watch.read()).stats.fleet.in_flight_count != 1:
            pass
        work.end()
        while (await watch.read()).stats.fleet.in_flight_count != 0:
            pass
    watch.cancel()
    error = await error_of(
        balancer.stub.WatchStats(pb.WatchStatsRequest(interval=Duration(nanos=1))).read()
    )
    assert error.error_reason == "INVALID_FIELD"
