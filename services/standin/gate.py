"""What happens to every request: the record, faults, and the form of errors."""

import asyncio
import platform

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from services.standin.core.decode import DecodeError
from services.standin.core.hosts import allows_host, allows_origin, is_loopback
from services.standin.faults import DropConnectionError
from services.standin.journal import ENTRY, Entry
from services.standin.listener import cut
from services.standin.state import State, check_status
from services.standin.wire import ApiError, plain, reply

CONTROL_PREFIX = "/standin/"
# Requests to these take their fault when they are about to work.
_WORK = frozenset({"/api/generate", "/api/chat", "/api/embed", "/api/embeddings"})
# How often a request that is not answered looks whether it may be.
_SILENCE_SECONDS = 0.02


def make_gate(state: State) -> Middleware:
    """The middleware of one server."""
    own_name = platform.node()
    checks_host = is_loopback(state.settings.host)

    @web.middleware
    async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
        if checks_host and not allows_host(request.headers.get("Host", ""), own_name):
            return web.Response(status=403)
        if not allows_origin(request.headers.get("Origin", "")):
            return web.Response(status=403)
        if request.method == "OPTIONS" and "Origin" in request.headers:
            return web.Response(status=204)
        entry = state.journal.open(request, state.clock.now())
        request[ENTRY] = entry
        try:
            if not request.path.startswith(CONTROL_PREFIX):
                await _apply_faults(state, request, entry)
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
            _hang_up(request)
            return web.Response()
        entry.status = response.status
        return response

    return gate


async def _apply_faults(state: State, request: web.Request, entry: Entry) -> None:
    while state.faults.is_silent:
        await state.clock.sleep(_SILENCE_SECONDS)
    if request.path in _WORK:
        return
    entry.fault = state.faults.take_other(request.path)
    entry.faults = entry.fault.names()
    if entry.fault.hang:
        await asyncio.Event().wait()
    if entry.fault.delay_seconds:
        await state.clock.sleep(entry.fault.delay_seconds)
    if entry.fault.drop_after_tokens is not None:
        raise DropConnectionError


async def _handle(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        check_status(request[ENTRY].fault)
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


def _hang_up(request: web.Request) -> None:
    """Cut the connection; half a chunk that was just written still leaves."""
    cut(request.transport)
