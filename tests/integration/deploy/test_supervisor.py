"""Starting and stopping real processes."""

import asyncio
import os
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.local.checks import check_http, check_process
from deploy.local.component import Component, NotReady, Progress, Step
from deploy.local.ports import LOOPBACK, Ports
from deploy.local.processes import identify, is_alive, spawn, terminate, wait_for_exit
from deploy.local.redis import redis_component
from deploy.local.state import Addresses, ProcessRecord, StackState, StateFile
from deploy.local.supervisor import StartFailed, Supervisor

ENVIRONMENT = {"PATH": os.environ["PATH"]}
ADDRESSES = Addresses(rag="r", cache="c", balancer="b", trace_url="t")


class Steps:
    """Notes what a supervisor reports."""

    def __init__(self) -> None:
        self.seen: list[tuple[Step, str]] = []

    def __call__(self, progress: Progress) -> None:
        self.seen.append((progress.step, progress.name))

    def names(self, step: Step) -> list[str]:
        return [name for seen, name in self.seen if seen is step]


def python_component(name: str, script: str, **fields: Any) -> Component:
    """A process that runs a few lines of Python."""

    async def check() -> None:
        raise NotReady("it never answers")

    defaults: dict[str, Any] = {"check": check, "address": name, "stop_limit_seconds": 5.0}
    return Component(
        name=name,
        command=(sys.executable, "-S", "-c", script),
        environment=ENVIRONMENT,
        **(defaults | fields),
    )


async def always_ready() -> None:
    """Answers at once."""


SLEEP = "import time; print('sleeping', flush=True); time.sleep(60)"


def trace_store_component(ports: Ports) -> Component:
    otlp, http = ports.take(), ports.take()
    url = f"http://{LOOPBACK}:{http}"

    async def check() -> None:
        await check_http(f"{url}/ready")

    module = ("-m", "deploy.local.trace_store", "--otlp-port", str(otlp), "--http-port", str(http))
    return Component(
        name="traces",
        command=(sys.executable, *module),
        environment=ENVIRONMENT | {"PYTHONPATH": str(Path(__file__).parents[3])},
        address=url,
        check=check,
        needs=("redis",),
    )


@pytest.fixture
def state_file(tmp_path: Path) -> StateFile:
    (tmp_path / "home").mkdir()
    return StateFile(tmp_path / "home")


@pytest.fixture
def supervisor(state_file: StateFile) -> Supervisor:
    return Supervisor(state_file, StackState(addresses=ADDRESSES))


async def test_components_start_in_the_order_they_need_and_stop_the_other_way_round(
    supervisor: Supervisor, state_file: StateFile
):
    steps = Steps()
    ports = Ports()
    redis = redis_component(state_file.home, ENVIRONMENT, port=ports.take())
    try:
        await supervisor.start([trace_store_component(ports), redis], steps)
        assert steps.names(Step.READY) == ["redis", "traces"]
        recorded = state_file.read()
        assert recorded is not None
        assert recorded.ready
        assert [each.name for each in recorded.alive()] == ["redis", "traces"]
        for record in recorded.processes:
            await check_process(record)
    finally:
        await supervisor.stop(steps)
    assert steps.names(Step.STOPPED) == ["traces", "redis"]
    assert not any(is_alive(each.identity) for each in recorded.processes)
    assert state_file.read() is None


async def test_another_command_can_stop_what_one_has_started(
    supervisor: Supervisor, state_file: StateFile
):
    steps = Steps()
    await supervisor.start([python_component("sleeper", SLEEP, check=always_ready)], steps)
    recorded = state_file.read()
    assert recorded is not None
    await Supervisor(state_file, recorded).stop(steps)
    assert steps.names(Step.STOPPED) == ["sleeper"]
    assert recorded.alive() == ()


async def test_a_component_that_ends_at_once_is_reported_with_its_last_words(
    supervisor: Supervisor, state_file: StateFile
):
    steps = Steps()
    crash = python_component(
        "crash", "print('cannot go on'); raise SystemExit(3)", needs=("sleeper",)
    )
    sleeper = python_component("sleeper", SLEEP, check=always_ready)
    with pytest.raises(StartFailed, match=r"(?s)crash ended with status 3.*    cannot go on"):
        await supervisor.start([sleeper, crash], steps)
    started = supervisor.state.processes
    assert not supervisor.state.ready
    await supervisor.stop(steps)
    assert len(started) == 2
    assert not any(is_alive(each.identity) for each in started)


async def test_a_component_that_does_not_answer_in_time_is_reported_with_what_was_seen(
    supervisor: Supervisor,
):
    steps = Steps()
    silent = python_component("silent", SLEEP, ready_limit_seconds=0.5)
    try:
        with pytest.raises(StartFailed, match=r"was not ready after 0.5 s \(it never answers\)"):
            await supervisor.start([silent], steps)
    finally:
        await supervisor.stop(steps)


async def test_a_program_that_does_not_exist_is_reported(supervisor: Supervisor):
    missing = replace(python_component("missing", ""), command=("/no/such/program",))
    with pytest.raises(StartFailed, match="missing could not be started"):
        await supervisor.start([missing], Steps())


async def test_a_taken_port_is_reported_with_what_redis_says(
    supervisor: Supervisor, state_file: StateFile
):
    with socket.socket() as other:
        other.bind((LOOPBACK, 0))
        other.listen()
        port = other.getsockname()[1]
        redis = redis_component(state_file.home, ENVIRONMENT, port=port)
        with pytest.raises(StartFailed, match="Address already in use"):
            await supervisor.start([replace(redis, ready_limit_seconds=5.0)], Steps())
    await supervisor.stop(Steps())


async def test_a_start_that_is_cancelled_can_be_stopped(supervisor: Supervisor):
    steps = Steps()
    start = asyncio.create_task(supervisor.start([python_component("silent", SLEEP)], steps))
    while not supervisor.state.processes:
        await asyncio.sleep(0.01)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    await supervisor.stop(steps)
    assert steps.names(Step.STOPPED) == ["silent"]


async def test_the_end_of_any_component_is_noticed(supervisor: Supervisor):
    components = [
        python_component("long", SLEEP, check=always_ready),
        python_component("short", SLEEP, check=always_ready),
    ]
    try:
        await supervisor.start(components, Steps())
        waiting = asyncio.create_task(supervisor.wait_for_end())
        (short,) = [each for each in supervisor.state.processes if each.name == "short"]
        os.kill(short.identity.pid, signal.SIGKILL)
        assert (await asyncio.wait_for(waiting, 10)).name == "short"
    finally:
        await supervisor.stop(Steps())


async def test_a_process_that_does_not_listen_is_killed_with_its_children(tmp_path: Path):
    script = (
        "import os, signal, subprocess, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    log = tmp_path / "log"
    command = (sys.executable, "-S", "-c", script)
    process = spawn(command, environment=ENVIRONMENT, directory=tmp_path, log=log)
    while not log.read_text().endswith("\n"):
        await asyncio.sleep(0.01)
    child = identify(int(log.read_text()))
    stopped = await terminate(process, stop_signal=signal.SIGTERM, limit_seconds=0.2)
    assert not stopped
    await asyncio.wait_for(wait_for_exit(child), 10)


async def test_a_process_with_a_reused_id_is_left_alone(state_file: StateFile, tmp_path: Path):
    command = (sys.executable, "-S", "-c", SLEEP)
    identity = spawn(
        command, environment=ENVIRONMENT, directory=tmp_path, log=tmp_path / "innocent.log"
    )
    try:
        stale = ProcessRecord(
            name="stale",
            identity=replace(identity, start_ticks=identity.start_ticks - 1),
            address="a",
            grpc_address="",
            log="l",
            needs=(),
        )
        state = StackState(addresses=ADDRESSES, processes=(stale,), ready=True)
        state_file.write(state)
        await Supervisor(state_file, state).stop(Steps())
        assert is_alive(identity)
        assert state_file.read() is None
    finally:
        await terminate(identity, stop_signal=signal.SIGKILL, limit_seconds=5.0)
