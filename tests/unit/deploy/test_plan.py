"""What the stack consists of, by what the user has set."""

import socket
import sys
from pathlib import Path

import pytest
from aiohttp import web

from deploy.local import plan
from deploy.local.plan import STANDIN_NOTE, Plan, plan_stack
from deploy.local.ports import LOOPBACK

OWN = {
    "PATH": "/usr/bin:/bin",
    "PANNIER_RAG_DATABASE_URL": "postgresql://me@db/pannier",
    "PANNIER_CACHE_REDIS_URL": "redis://cache:6379",
    "PANNIER_BALANCER_BACKENDS": "http://gpu-1:11434",
    "PANNIER_TRACE_URL": "http://tempo:3200",
}


def names(planned: Plan) -> list[str]:
    return [each.name for each in planned.components]


def variables(planned: Plan, name: str) -> dict[str, str]:
    (component,) = [each for each in planned.components if each.name == name]
    return dict(component.environment)


@pytest.fixture(autouse=True)
def no_ollama(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks for Ollama where certainly nothing listens."""
    monkeypatch.setattr(plan, "OLLAMA_URL", "http://127.0.0.1:1")


async def test_on_a_fresh_machine_everything_is_brought_along(tmp_path: Path):
    planned = await plan_stack(tmp_path, {"PATH": "/usr/bin:/bin"})
    assert names(planned) == [
        *("postgres", "redis", "traces"),
        *(f"standin-{number}" for number in range(1, 9)),
        *("cache", "balancer", "rag"),
    ]
    assert STANDIN_NOTE in planned.notes


async def test_what_the_user_has_is_not_started_again(tmp_path: Path):
    planned = await plan_stack(tmp_path, OWN)
    assert names(planned) == ["cache", "balancer", "rag"]
    assert variables(planned, "rag")["PANNIER_RAG_DATABASE_URL"] == OWN["PANNIER_RAG_DATABASE_URL"]
    assert variables(planned, "cache")["PANNIER_CACHE_REDIS_URL"] == "redis://cache:6379"
    assert variables(planned, "balancer")["PANNIER_BALANCER_BACKENDS"] == "http://gpu-1:11434"
    assert planned.addresses.trace_url == "http://tempo:3200"
    assert STANDIN_NOTE not in planned.notes


async def test_the_services_know_where_the_others_are(tmp_path: Path):
    planned = await plan_stack(tmp_path, {"PATH": "/usr/bin:/bin"})
    by_name = {each.name: each for each in planned.components}
    rag = variables(planned, "rag")
    assert rag["PANNIER_RAG_CACHE_ADDRESS"] == planned.addresses.cache
    assert rag["PANNIER_RAG_BALANCER_ADDRESS"] == planned.addresses.balancer
    assert rag["PANNIER_RAG_DATABASE_URL"] == by_name["postgres"].address
    assert variables(planned, "cache")["PANNIER_CACHE_REDIS_URL"] == by_name["redis"].address
    backends = variables(planned, "balancer")["PANNIER_BALANCER_BACKENDS"].split(",")
    assert backends == [by_name[f"standin-{number}"].address for number in range(1, 9)]
    endpoints = {
        variables(planned, name)[f"PANNIER_{name.upper()}_OTLP_ENDPOINT"]
        for name in ("rag", "cache", "balancer")
    }
    assert len(endpoints) == 1
    assert endpoints.pop().rpartition(":")[2] in by_name["traces"].command


async def test_a_service_waits_for_what_it_needs(tmp_path: Path):
    planned = await plan_stack(tmp_path, {"PATH": "/usr/bin:/bin"})
    needs = {each.name: each.needs for each in planned.components}
    assert needs["rag"] == ("postgres", "cache", "balancer", "traces")
    assert needs["cache"] == ("redis", "traces")
    assert needs["balancer"] == (*(f"standin-{number}" for number in range(1, 9)), "traces")


async def test_other_settings_of_a_service_are_handed_on(tmp_path: Path):
    planned = await plan_stack(tmp_path, OWN | {"PANNIER_RAG_CHUNK_TOKEN_COUNT": "300"})
    assert variables(planned, "rag")["PANNIER_RAG_CHUNK_TOKEN_COUNT"] == "300"


async def test_an_address_of_the_users_own_is_kept(tmp_path: Path):
    planned = await plan_stack(tmp_path, OWN | {"PANNIER_CACHE_GRPC_ADDRESS": "127.0.0.1:7000"})
    assert planned.addresses.cache == "127.0.0.1:7000"
    assert variables(planned, "rag")["PANNIER_RAG_CACHE_ADDRESS"] == "127.0.0.1:7000"


async def test_a_store_does_not_get_the_users_secrets(tmp_path: Path):
    planned = await plan_stack(tmp_path, {"PATH": "/usr/bin:/bin", "API_TOKEN": "secret"})
    assert "API_TOKEN" not in variables(planned, "redis")
    assert "API_TOKEN" not in variables(planned, "postgres")


async def test_a_taken_port_is_replaced_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with socket.socket() as other:
        other.bind((LOOPBACK, 0))
        other.listen()
        taken = other.getsockname()[1]
        monkeypatch.setitem(plan._GRPC_PORTS, "rag", taken)
        planned = await plan_stack(tmp_path, OWN)
    assert planned.addresses.rag != f"{LOOPBACK}:{taken}"
    used = planned.addresses.rag.rpartition(":")[2]
    assert f"Port {taken} is taken by something else; rag uses {used}." in planned.notes


async def test_services_run_this_python_and_see_this_code(tmp_path: Path):
    planned = await plan_stack(tmp_path, OWN | {"PYTHONPATH": "/mine:here"})
    (rag,) = [each for each in planned.components if each.name == "rag"]
    assert rag.command == (sys.executable, "-P", "-m", "services.rag")
    root = Path(plan.__file__).parents[2]
    assert rag.environment["PYTHONPATH"] == f"{root}:/mine:{Path.cwd() / 'here'}"


@pytest.mark.parametrize(("document", "found"), [({"version": "0.5.1"}, True), ({}, False)])
async def test_an_ollama_on_this_machine_is_used_if_it_says_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, document: dict[str, str], found: bool
):
    async def version(_request: web.Request) -> web.Response:
        return web.json_response(document)

    application = web.Application()
    application.router.add_get("/api/version", version)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, LOOPBACK, 0).start()
        url = f"http://{LOOPBACK}:{runner.addresses[0][1]}"
        monkeypatch.setattr(plan, "OLLAMA_URL", url)
        given = {name: each for name, each in OWN.items() if name != "PANNIER_BALANCER_BACKENDS"}
        planned = await plan_stack(tmp_path, given)
    finally:
        await runner.cleanup()
    backends = variables(planned, "balancer")["PANNIER_BALANCER_BACKENDS"]
    assert (backends == url) is found
    assert (STANDIN_NOTE in planned.notes) is not found
