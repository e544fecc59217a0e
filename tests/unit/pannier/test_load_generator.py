"""An open loop: questions go out when they are due, whatever becomes of those before."""

import asyncio
import io
import random
import time
from contextlib import suppress
from dataclasses import replace

import pytest
from rich.console import Console

from pannier.commands.load_checks import Services
from pannier.commands.load_deeds import Deeds
from pannier.commands.load_faults import FaultSession
from pannier.commands.load_run import Run, RunOptions, make_plan
from pannier.commands.output import Output
from pannier.load.arrivals import Stage
from pannier.load.faults import PAUSE, Fault
from pannier.load.generator import Generator
from pannier.load.outcome import Outcome
from pannier.load.scenario import Needs, Phase, Scenario
from pannier.load.tally import Tally
from pannier.load.traffic import Ask, Mix

ASK = Ask(text="what?", mode="rag", tenant="a", kind="new")


def generator(send, **options):
    chosen = {"max_in_flight": 100, "drain_seconds": 5.0, "grace_seconds": 5.0, **options}
    return Generator(send=send, tally=Tally(), monotonic=time.monotonic, **chosen)


async def test_nobody_waits_for_an_answer_before_the_next_question():
    sent_count = 0
    all_are_sent = asyncio.Event()

    async def send(_ask):
        nonlocal sent_count
        sent_count += 1
        if sent_count == 20:
            all_are_sent.set()
        await all_are_sent.wait()
        return Outcome()

    asking = generator(send)
    plan = [(number * 0.01, ASK) for number in range(20)]
    await asking.run(plan, began=time.monotonic())
    assert asking.tally.most_in_flight == 20
    assert asking.tally.total.answered == 20


async def test_a_generator_that_is_held_up_says_so_and_counts_the_wait():
    async def send(_ask):
        return Outcome()

    asking = generator(send)

    def plan():
        yield 0.0, ASK
        # Holds up the whole loop, as a busy machine would.
        time.sleep(0.2)
        yield 0.01, ASK

    await asking.run(plan(), began=time.monotonic())
    late = asking.tally.total.late
    assert late.maximum_seconds >= 0.18
    assert asking.tally.total.whole.maximum_seconds >= late.maximum_seconds


async def test_what_is_due_beyond_the_limit_is_counted_and_not_sent():
    go_on = asyncio.Event()

    async def send(_ask):
        await go_on.wait()
        return Outcome()

    asking = generator(send, max_in_flight=3)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asking.run([(0.0, ASK) for _ in range(10)], began=time.monotonic()))
        while asking.tally.total.offered < 10:
            await asyncio.sleep(0)
        go_on.set()
    total = asking.tally.total
    assert (total.sent, total.refused, total.answered) == (3, 7, 3)


async def test_what_does_not_end_in_time_is_broken_off_and_no_failure():
    async def send(_ask):
        await asyncio.Event().wait()
        raise AssertionError

    asking = generator(send, drain_seconds=0.05)
    await asking.run([(0.0, ASK)] * 5, began=time.monotonic())
    total = asking.tally.total
    assert (total.cancelled, total.failed, asking.tally.in_flight) == (5, 0, 0)


async def test_cancelled_it_asks_no_more_and_gives_those_under_way_their_grace():
    async def send(_ask):
        await asyncio.sleep(0.1)
        return Outcome()

    asking = generator(send)
    plan = [(0.0, ASK), (0.0, ASK), (30.0, ASK)]
    running = asyncio.create_task(asking.run(plan, began=time.monotonic()))
    while asking.tally.total.sent < 2:
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (asking.tally.total.answered, asking.tally.total.offered) == (2, 2)


async def test_cancelled_twice_it_breaks_everything_off_at_once():
    async def send(_ask):
        await asyncio.Event().wait()
        raise AssertionError

    asking = generator(send, grace_seconds=60.0)
    running = asyncio.create_task(asking.run([(0.0, ASK), (30.0, ASK)], began=time.monotonic()))
    while not asking.tally.total.sent:
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.sleep(0.01)
    running.cancel()
    with suppress(asyncio.CancelledError):
        async with asyncio.timeout(5):
            await running
    assert asking.tally.total.cancelled == 1
    assert asking.tally.in_flight == 0


def phases(*rates, **mix):
    chosen = {"modes": {"rag": 3, "direct": 1}, "tenants": {"a": 1}, "repeat_ratio": 0.3, **mix}
    return [
        Phase(
            name=f"phase {number}",
            stage=Stage(seconds=100, start_rate=rate, end_rate=rate),
            mix=Mix(**chosen),
        )
        for number, rate in enumerate(rates)
    ]


def test_a_plan_is_the_same_for_the_same_seed():
    questions = {"": [(f"{number}?",) for number in range(30)]}

    def plan(seed):
        return list(make_plan(phases(3, 9), questions, poisson=True, seed=seed))

    assert plan(1) == plan(1)
    assert plan(1) != plan(2)


def test_phases_follow_each_other_at_their_own_rates():
    questions = {"": [(f"{number}?",) for number in range(30)]}
    planned = list(make_plan(phases(3, 9), questions, poisson=False, seed=1))
    first = [at for at, ask in planned if ask.phase == 0]
    second = [at for at, ask in planned if ask.phase == 1]
    assert (len(first), len(second)) == (300, 900)
    assert max(first) < 100 <= min(second)


def test_arrivals_are_the_same_whatever_is_asked():
    questions = {"": [(f"{number}?",) for number in range(30)]}
    some = make_plan(phases(3), questions, poisson=True, seed=4)
    others = make_plan(phases(3, repeat_ratio=0.9), questions, poisson=True, seed=4)
    assert [at for at, _ in some] == [at for at, _ in others]
    assert random.Random("4/arrivals").random() != random.Random("4/traffic").random()


async def test_a_fault_that_cannot_be_put_in_force_ends_the_run_with_its_reason():
    class Answers:
        async def send(self, _ask, **_how):
            return Outcome()

    running = run_of(Answers())
    async with asyncio.timeout(10):
        with pytest.raises(ProcessLookupError, match="no process redis"):
            await running.run(an_output(), told=lambda _: None)
    assert running.tally.in_flight == 0
    assert running.problems == []


class SlowFaults(FaultSession):
    """Takes its time to put faults in force, and notes when that is."""

    changes = None

    def _pause(self, name):
        self.changes["begun"] = time.monotonic()
        time.sleep(0.1)
        self.changes["in force"] = time.monotonic()

    def _undo(self):
        self.changes["undone"] = time.monotonic()


@pytest.fixture
def slow_faults(monkeypatch):
    monkeypatch.setattr(SlowFaults, "changes", {})
    monkeypatch.setattr("pannier.commands.load_run.FaultSession", SlowFaults)
    return SlowFaults


async def test_the_first_question_meets_the_faults_of_the_first_phase(slow_faults):
    asked = []

    class Asker:
        async def send(self, _ask, **_how):
            asked.append(time.monotonic())
            return Outcome()

    running = run_of(Asker(), Stage(seconds=0.2, start_rate=10, end_rate=10))
    async with asyncio.timeout(10):
        await running.run(an_output(), told=lambda _: None)
    assert list(slow_faults.changes) == ["begun", "in force", "undone"]
    first, second = (each - slow_faults.changes["in force"] for each in asked)
    assert first >= 0
    # What it took to put them in force is no part of the run.
    assert second > 0.09


async def test_a_run_that_is_broken_off_before_it_begins_leaves_no_fault(slow_faults):
    running = run_of(None)
    task = asyncio.create_task(running.run(an_output(), told=lambda _: None))
    async with asyncio.timeout(10):
        while not slow_faults.changes:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert list(slow_faults.changes) == ["begun", "in force", "undone"]
    assert running.broken_off
    assert running.tally.in_flight == 0
    assert running.answered_within_seconds == 0


def run_of(asker, stage=None):
    """A run of one phase in which a process is to stand still that does not exist."""
    (phase,) = phases(20)
    pause = Fault(kind=PAUSE, options={"process": "redis"})
    phase = replace(phase, stage=stage or phase.stage, faults=(pause,))
    return Run(
        scenario=Scenario(name="s", about="", settings={}, needs=Needs(), phases=(phase,)),
        questions={"": [("what?",)]},
        options=RunOptions(
            poisson=False, seed=1, max_in_flight=9, drain_seconds=5.0, grace_seconds=1.0
        ),
        standins=(),
        processes={},
        asker=asker,
        deeds=Deeds(services=Services(), tenant="a", told=lambda _: None),
    )


def an_output():
    return Output(console=Console(file=io.StringIO()), errors=Console(file=io.StringIO()))
