"""Faults against real stand-ins and processes: each works, and none outlives its session."""

import asyncio
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import pytest

from deploy.local.processes import identify
from deploy.local.state import ProcessRecord
from pannier.commands.load_faults import (
    FaultSession,
    NotAStandin,
    is_stopped,
    resume,
    rule_count,
    undo_all,
)
from pannier.load.faults import KINDS, PAUSE, STUTTER, Fault
from tests.kit.standin import running_standins


def fault(kind, **given):
    options = {name: given.pop(name, value) for name, value in KINDS[kind].defaults.items()}
    return Fault(kind=kind, options=options, **given)


async def rules_of(standin):
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{standin.url}/standin/faults") as reply,
    ):
        return (await reply.json())["rules"]


async def test_every_kind_is_understood_by_a_stand_in_and_taken_back():
    async with running_standins(1) as (standin,):
        for kind in sorted(KINDS.keys() - {PAUSE, STUTTER, "refuse"}):
            with FaultSession([standin.backend_id], {}) as session:
                await asyncio.to_thread(session.apply, [fault(kind)], for_seconds=60.0)
                assert len(await rules_of(standin)) == 1, kind
                await asyncio.to_thread(session.undo)
            assert await rules_of(standin) == []
            assert session.problems == []


async def test_only_so_many_backends_are_told_and_only_what_is_asked_for_fails():
    async with running_standins(3) as standins:
        names = [each.backend_id for each in standins]
        session = FaultSession(names, {})
        told = fault("status", status=503, backends=2, limits={"path": "/api/chat"})
        await asyncio.to_thread(session.apply, [told], for_seconds=60.0)
        assert [len(await rules_of(each)) for each in standins] == [1, 1, 0]
        assert (await rules_of(standins[0]))[0]["path"] == "/api/chat"
        await asyncio.to_thread(session.close)
        assert [len(await rules_of(each)) for each in standins] == [0, 0, 0]


async def test_a_crash_within_the_session_undoes_everything():
    async with running_standins(2) as standins:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(_crash_within, [each.backend_id for each in standins])
        assert [await rules_of(each) for each in standins] == [[], []]


def _crash_within(names):
    with FaultSession(names, {}) as session:
        session.apply([fault("hang"), fault("silent")], for_seconds=60.0)
        raise ZeroDivisionError


async def test_nothing_is_ordered_once_the_session_is_closed():
    async with running_standins(1) as (standin,):
        session = FaultSession([standin.backend_id], {})
        session.close()
        await asyncio.to_thread(session.apply, [fault("hang")], for_seconds=60.0)
        assert await rules_of(standin) == []


async def test_a_refusal_is_renewed_and_over_soon_after_it_is_taken_back():
    async with running_standins(1) as (standin,):
        session = FaultSession([standin.backend_id], {})
        await asyncio.to_thread(session.apply, [fault("refuse")], for_seconds=60.0)
        with pytest.raises(NotAStandin):
            await asyncio.to_thread(rule_count, standin.backend_id)
        began = time.monotonic()
        await asyncio.to_thread(session.undo)
        assert time.monotonic() - began < 8
        assert await asyncio.to_thread(rule_count, standin.backend_id) == 0
        assert session.problems == []


async def test_a_backend_that_is_no_stand_in_is_said_and_leaves_the_others_as_they_were():
    async with running_standins(1) as (standin,):
        session = FaultSession([standin.backend_id, "127.0.0.1:1"], {})
        with pytest.raises(NotAStandin, match=r"127\.0\.0\.1:1 is no stand-in"):
            await asyncio.to_thread(session.apply, [fault("hang")], for_seconds=60.0)
        await asyncio.to_thread(session.close)
        assert await rules_of(standin) == []
        assert ["127.0.0.1:1" in each for each in session.problems] == [True]


async def test_leftovers_of_others_are_removed_on_demand():
    async with running_standins(2) as standins:
        for each in standins:
            await each.order_fault(hang=True)
        # One that is away does not keep the others from being freed.
        names = ["127.0.0.1:1", *(each.backend_id for each in standins)]
        problems = await asyncio.to_thread(undo_all, names)
        assert ["127.0.0.1:1" in each for each in problems] == [True]
        assert [await rules_of(each) for each in standins] == [[], []]


async def test_the_faults_that_a_stand_in_has_are_counted():
    async with running_standins(1) as (standin,):
        await standin.order_fault(hang=True)
        assert await asyncio.to_thread(rule_count, standin.backend_id) == 1


@pytest.mark.parametrize("address", ["127.0.0.1:x", "nonsense", "127.0.0.1:"])
def test_what_is_no_address_is_no_stand_in(address):
    with pytest.raises(NotAStandin, match="HOST:PORT"):
        rule_count(address)


@pytest.fixture
def sleeper():
    with subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"]) as process:
        yield ProcessRecord(
            name="redis",
            identity=identify(process.pid),
            address="",
            grpc_address="",
            log="",
            needs=(),
        )
        process.kill()


def state_of(record):
    text = Path(f"/proc/{record.identity.pid}/stat").read_text()
    return text.rpartition(")")[2].split()[0]


def wait_for(condition):
    ends = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.005)


def test_a_process_stands_still_until_the_session_ends(sleeper):
    with FaultSession([], {"redis": sleeper}) as session:
        session.apply([fault(PAUSE, process="redis")], for_seconds=60.0)
        wait_for(lambda: state_of(sleeper) == "T")
        assert session.is_active
    wait_for(lambda: state_of(sleeper) != "T")
    assert session.problems == []


def test_a_process_stutters_until_it_is_taken_back(sleeper):
    told = fault(STUTTER, process="redis", seconds=0.05, every=0.15)
    with FaultSession([], {"redis": sleeper}) as session:
        session.apply([told], for_seconds=60.0)
        seen = []
        ends = time.monotonic() + 1.0
        while time.monotonic() < ends:
            session.renew()
            time.sleep(0.005)
            seen.append(is_stopped(sleeper))
        turns = sum(a != b for a, b in itertools.pairwise(seen))
        assert 6 <= turns <= 14
        assert 0.1 < sum(seen) / len(seen) < 0.6
        assert session.is_active
        session.apply([told], for_seconds=60.0)
        session.renew()
    wait_for(lambda: state_of(sleeper) != "T")
    session.renew()
    assert not is_stopped(sleeper)
    assert not session.is_active


def test_the_children_of_a_process_stand_still_with_it():
    script = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as parent:
        child_pid = int(parent.stdout.readline())
        records = [
            ProcessRecord(
                name=name,
                identity=identify(pid),
                address="",
                grpc_address="",
                log="",
                needs=(),
            )
            for name, pid in (("postgres", parent.pid), ("child", child_pid))
        ]
        try:
            with FaultSession([], {"postgres": records[0]}) as session:
                session.apply([fault(PAUSE, process="postgres")], for_seconds=60.0)
                wait_for(lambda: [state_of(each) for each in records] == ["T", "T"])
            wait_for(lambda: "T" not in [state_of(each) for each in records])
        finally:
            os.kill(child_pid, 9)
            parent.kill()


def test_a_process_that_a_killed_run_has_stopped_is_continued_on_demand(sleeper):
    os.kill(sleeper.identity.pid, 19)
    wait_for(lambda: state_of(sleeper) == "T")
    assert resume([sleeper]) == 1
    wait_for(lambda: state_of(sleeper) != "T")


def test_a_process_that_is_not_there_is_said(sleeper):
    session = FaultSession([], {"redis": sleeper})
    with pytest.raises(ProcessLookupError, match="no process postgres"):
        session.apply([fault(PAUSE, process="postgres")], for_seconds=1.0)
    session.close()
    assert session.problems == []
