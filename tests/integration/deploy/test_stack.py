"""`pannier up`, `down` and `status` as a user runs them, in a folder of their own."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from deploy.local import stack
from deploy.local.component import Progress
from deploy.local.plan import Plan, plan_stack
from deploy.local.processes import is_alive
from deploy.local.stack import start_stack, stop_stack
from deploy.local.state import AlreadyUp, FolderInUse, StateFile
from deploy.local.supervisor import StartFailed

STORES = ("postgres", "redis", "traces")


def ignore(_progress: Progress) -> None:
    """Reports nothing."""


@pytest.fixture
def environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"]}


@pytest.fixture
def stores_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves backends and services out: the stores show the same, sooner."""

    async def plan_stores(home: Path, given: dict[str, str]) -> Plan:
        planned = await plan_stack(home, given | {"PANNIER_BALANCER_BACKENDS": "http://none"})
        stores = tuple(each for each in planned.components if each.name in STORES)
        return replace(planned, components=stores)

    monkeypatch.setattr(stack, "plan_stack", plan_stores)


def pannier(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pannier.commands.main", *arguments],
        env={**os.environ, "PANNIER_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.mark.usefixtures("stores_only")
async def test_stores_run_until_they_are_stopped_and_keep_their_data(
    tmp_path: Path, environment: dict[str, str]
):
    home = tmp_path / "home"
    for attempt in range(2):
        supervisor = await start_stack(home, environment, ignore)
        try:
            (url,) = [
                each.address for each in supervisor.state.processes if each.name == "postgres"
            ]
            connection = await asyncpg.connect(url)
            try:
                await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
                await connection.execute("CREATE TABLE IF NOT EXISTS kept (number int)")
                assert await connection.fetchval("SELECT count(*) FROM kept") == attempt
                await connection.execute("INSERT INTO kept VALUES (1)")
            finally:
                await connection.close()
            status = pannier(home, "status", "--json")
            rows = {each["name"]: each for each in json.loads(status.stdout)["processes"]}
            assert set(rows) == set(STORES)
            assert {each["health"] for each in rows.values()} == {"serving"}
            assert rows["postgres"]["resident_bytes"] > 5_000_000
            assert status.returncode == 0
            with pytest.raises(AlreadyUp):
                await start_stack(home, environment, ignore)
        finally:
            records = supervisor.state.processes
            assert await stop_stack(home, ignore) == len(STORES)
        assert not [each.name for each in records if is_alive(each.identity)]
    assert pannier(home, "down").stdout == "Nothing was running.\n"
    assert pannier(home, "status").returncode == 1


@pytest.mark.usefixtures("stores_only")
async def test_what_is_left_of_a_broken_stack_is_stopped_before_a_new_start(
    tmp_path: Path, environment: dict[str, str]
):
    first = await start_stack(tmp_path, environment, ignore)
    broken = {each.name: each for each in first.state.processes}
    os.kill(broken["redis"].identity.pid, 9)
    await first.wait_for_end()
    second = await start_stack(tmp_path, environment, ignore)
    try:
        assert len(second.state.alive()) == len(STORES)
        assert not is_alive(broken["traces"].identity)
    finally:
        await stop_stack(tmp_path, ignore)


async def test_a_start_that_fails_leaves_nothing_running(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    async def plan_failure(home: Path, given: dict[str, str]) -> Plan:
        planned = await plan_stack(home, given | {"PANNIER_BALANCER_BACKENDS": "http://none"})
        crash = replace(
            planned.components[0],
            name="crash",
            command=(sys.executable, "-S", "-c", "raise SystemExit('no way')"),
            user=None,
            needs=("redis",),
        )
        redis = [each for each in planned.components if each.name == "redis"]
        return replace(planned, components=(*redis, crash))

    monkeypatch.setattr(stack, "plan_stack", plan_failure)
    pids: list[str] = []
    with pytest.raises(StartFailed, match=r"(?s)crash ended with status 1.*no way"):
        await start_stack(tmp_path, environment, lambda each: pids.append(each.step.value))
    assert pids.count("stopped") == 2
    assert StateFile(tmp_path).read() is None


async def test_two_commands_do_not_start_one_stack(tmp_path: Path, environment: dict[str, str]):
    with StateFile(tmp_path).exclusive(), pytest.raises(FolderInUse):
        await start_stack(tmp_path, environment, ignore)
