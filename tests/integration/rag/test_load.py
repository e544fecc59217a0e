"""`pannier load` and `pannier top` with the real services; the fleet is two stand-ins."""

import asyncio
import io
import json
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

import aiohttp
import pytest
from rich.console import Console

from pannier.commands.load_calls import AskOptions
from pannier.commands.load_checks import Services as Addresses
from pannier.commands.load_options import simple_scenario
from pannier.commands.load_run import RunOptions
from pannier.commands.load_session import Session, run_session
from pannier.commands.output import Output
from pannier.commands.top_sources import Sources, ask_once, watching
from pannier.commands.top_state import TopState
from pannier.commands.top_view import FrameOptions, frame_lines
from pannier.load.arrivals import Stage
from pannier.load.faults import Fault
from pannier.load.thresholds import parse_threshold
from pannier.load.traffic import Mix
from pannier.rag.v1.corpus_service_pb2_grpc import CorpusServiceStub
from pannier.rag.v1.rag_service_pb2_grpc import RagServiceStub
from services.balancer import app as balancer_app
from services.balancer.metrics import CATALOGUE as BALANCER_CATALOGUE
from services.balancer.settings import BalancerSettings, parse_endpoint
from services.cache import app as cache_app
from services.cache.metrics import CATALOGUE as CACHE_CATALOGUE
from services.cache.settings import CacheSettings
from services.rag import app as rag_app
from services.rag.metrics import CATALOGUE as RAG_CATALOGUE
from services.rag.settings import RagSettings
from tests.integration.rag.conftest import Rag
from tests.kit.redis import private_redis, redis_server, shared_redis  # noqa: F401
from tests.kit.rpc import channel_to, make_runtime
from tests.kit.standin import running_standins

DOCUMENTS = {
    "button.md": "# Machine\n\nPress the blue button to stop the machine. It stops in 5 seconds.\n",
    "cheese.md": "# Food\n\nCheese is made from milk. Milk comes from cows.\n",
    "tea.md": "# Drinks\n\nTea is made from leaves. Green tea comes from Asia.\n",
}
QUESTIONS = {
    "": [
        ("How do I stop the machine?",),
        ("What is cheese made from?",),
        ("Where does green tea come from?",),
    ]
}
QUICK = {"drain_delay_seconds": 0.0, "drain_grace_seconds": 2.0}


class Suite:
    """All services, which can be stopped and started again at the same addresses."""

    def __init__(self, stack, standins, database, redis_url):
        self._stack, self._database, self._redis_url = stack, database, redis_url
        self.standins = standins
        self.ports = {}
        self._running = {}

    async def start(self, name):
        runtime, _ = make_runtime(name, _CATALOGUES[name])
        self._stack.callback(runtime.tracer_provider.shutdown)
        settings = replace(
            self._settings(name), grpc_address=f"127.0.0.1:{self.ports.get(name, 0)}"
        )
        running = AsyncExitStack()
        started = await running.enter_async_context(_APPS[name].start(settings, runtime))
        self._stack.push_async_callback(running.aclose)
        self.ports[name], self._running[name] = started.grpc_port, running

    async def stop(self, name):
        await self._running[name].aclose()

    def address(self, name):
        return f"127.0.0.1:{self.ports[name]}"

    @property
    def addresses(self):
        return {name: self.address(name) for name in _APPS}

    def _settings(self, name):
        if name == "balancer":
            return BalancerSettings(
                backends=tuple(parse_endpoint(each.url) for each in self.standins),
                **QUICK,
            )
        if name == "cache":
            return CacheSettings(redis_url=self._redis_url, redis_timeout_seconds=2.0, **QUICK)
        return RagSettings(
            database_url=self._database,
            balancer_address=self.address("balancer"),
            cache_address=self.address("cache"),
            cache_time_limit_seconds=5.0,
            **QUICK,
        )


_APPS = {"balancer": balancer_app, "cache": cache_app, "rag": rag_app}
_CATALOGUES = {"balancer": BALANCER_CATALOGUE, "cache": CACHE_CATALOGUE, "rag": RAG_CATALOGUE}


@pytest.fixture
async def suite(database_dsn, redis_server, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("PANNIER_HOME", str(tmp_path / "home"))
    async with AsyncExitStack() as stack:
        standins = await stack.enter_async_context(running_standins(2))
        suite = Suite(stack, standins, database_dsn, redis_server.url)
        for name in _APPS:
            await suite.start(name)
        async with channel_to(suite.ports["rag"]) as channel:
            rag = Rag(
                *(RagServiceStub(channel), CorpusServiceStub(channel), channel),
                *(None, None, None, 0, database_dsn, stack, "", ""),
            )
            await rag.ingest(DOCUMENTS)
            await rag.told()
        yield suite


def an_output():
    return Output(
        console=Console(file=io.StringIO(), width=160), errors=Console(file=io.StringIO())
    )


def session(suite, stages, path, *, faults=(), modes=None, conditions=(), **changes):
    mix = Mix(modes=modes or {"rag": 1.0}, tenants={"acme": 1.0}, repeat_ratio=0.5)
    policy = "bypass" if faults else "use"
    scenario = simple_scenario(stages, mix, model="", cache_policy=policy, fresh=False)
    phases = tuple(replace(each, faults=faults) for each in scenario.phases)
    return Session(
        scenario=replace(scenario, phases=phases),
        questions=QUESTIONS,
        options=RunOptions(
            poisson=False,
            seed=1,
            max_in_flight=100,
            drain_seconds=60.0,
            grace_seconds=changes.pop("grace_seconds", 5.0),
        ),
        how=AskOptions(collection="docs", deadline_seconds=60.0, **changes),
        services=Addresses(**suite.addresses),
        standins=(),
        connections=1,
        thresholds=tuple(map(parse_threshold, conditions)),
        json_file=str(path),
    )


def steady(rate, seconds):
    return Stage(seconds=seconds, start_rate=rate, end_rate=rate)


async def rules_of(standin):
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{standin.url}/standin/faults") as reply,
    ):
        return (await reply.json())["rules"]


@pytest.mark.parametrize("streaming", [True, False])
async def test_questions_are_answered_and_repeated_ones_from_the_cache(suite, tmp_path, streaming):
    output, path = an_output(), tmp_path / "figures.json"
    given = session(
        suite,
        [steady(10, 2)],
        path,
        modes={"rag": 3, "direct": 1},
        conditions=["errors>0%", "cached<20%"],
        streaming=streaming,
    )
    assert await run_session(output, given) == 0, output.errors.file.getvalue()
    total = json.loads(path.read_text())["total"]
    assert (total["offered"], total["answered"], total["failed"]) == (20, 20, 0)
    assert total["cached"] > 4
    assert 0 < total["first_text_seconds"]["p50"] <= total["whole_seconds"]["maximum"]
    assert "20 answered" in output.console.file.getvalue()


async def test_a_fault_makes_questions_fail_while_it_lasts_and_no_longer(suite, tmp_path):
    path = tmp_path / "figures.json"
    fault = Fault(kind="status", options={"status": 500, "message": "no"})
    given = session(
        suite,
        [steady(5, 2)],
        path,
        faults=(fault,),
        modes={"direct": 1.0},
        conditions=["errors>5%"],
    )
    output = an_output()
    assert await run_session(output, given) == 1
    document = json.loads(path.read_text())
    assert document["total"]["failed"] == document["total"]["sent"] == 10
    assert document["failed"] == ["errors>5%: it is 1"]
    assert [await rules_of(each) for each in suite.standins] == [[], []]


async def test_a_broken_off_run_leaves_no_fault_and_tells_what_it_knows(suite, tmp_path):
    path = tmp_path / "figures.json"
    given = session(
        suite,
        [steady(5, 600)],
        path,
        faults=(Fault(kind="hang"),),
        modes={"direct": 1.0},
        grace_seconds=0.2,
    )
    output = an_output()
    running = asyncio.create_task(run_session(output, given))
    async with asyncio.timeout(60):
        while not await suite.standins[0].requests("/api/chat"):
            await asyncio.sleep(0.02)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    assert running.cancelled()
    assert [await rules_of(each) for each in suite.standins] == [[], []]
    total = json.loads(path.read_text())["total"]
    assert total["cancelled"] == total["sent"] > 0


async def test_top_shows_all_services_and_one_that_goes_away_and_comes_back(suite, tmp_path):
    given = session(suite, [steady(10, 1)], tmp_path / "figures.json")
    assert await run_session(an_output(), given) == 0
    sources = Sources(addresses=suite.addresses, tenant="acme", interval_seconds=0.1)
    once = TopState()
    text = ""
    async with asyncio.timeout(60):
        # On a busy machine the cache may find its store slow for a while.
        while "store available" not in text:
            await ask_once(sources, once)
            text = "\n".join(frame_of(once))
    assert any(line.split()[:2] == ["rag", "10"] for line in frame_of(once))
    assert all(each.backend_id in text for each in suite.standins)
    assert "2 of 2 healthy" in text
    state = TopState()
    seen = state.services
    async with asyncio.timeout(60), watching(sources, state):
        while any(each.stats is None for each in seen.values()):
            await asyncio.sleep(0.02)
        await suite.stop("cache")
        while seen["cache"].away_since is None:
            await asyncio.sleep(0.02)
        assert any(line.startswith("cache    away for") for line in frame_of(state))
        assert seen["balancer"].stats is not None
        await suite.start("cache")
        while seen["cache"].stats is None:
            await asyncio.sleep(0.02)


def frame_of(state):
    return frame_lines(state, FrameOptions(width=160, now=1e9, clock=2e9))
