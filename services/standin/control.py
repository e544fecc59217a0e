"""`/standin/...`: orders for faults, the record of requests, and totals.

These endpoints are the stand-in's own; no fault applies to them, except that a closed listener
cannot be reached by anybody.
"""

from collections.abc import Callable
from typing import Any

from aiohttp import web

from services.standin.core.catalogue import Model
from services.standin.core.decode import DecodeError, decode_object
from services.standin.state import State
from services.standin.wire import reply

Refuse = Callable[[float, web.Request], None]


class ControlHandlers:
    """The endpoints that the real server does not have.

    Args:
        state: The server's parts.
        refuse: Closes the listener for so many seconds and cuts all connections but the request's.
    """

    def __init__(self, state: State, refuse: Refuse) -> None:
        self._state = state
        self._refuse = refuse

    async def list_faults(self, _: web.Request) -> web.Response:
        """The fault rules in the order in which they apply."""
        return reply({"rules": self._state.faults.dump()})

    async def add_fault(self, http: web.Request) -> web.Response:
        """Add a fault rule, or do at once what is done at once."""
        values = decode_object(await http.read(), "FaultRule")
        fault = self._state.faults.add(values)
        if fault.kill_child:
            self._state.scheduler.kill(self._model(values))
        if fault.refuse:
            self._refuse(float(values["for_seconds"]), http)
        return await self.list_faults(http)

    async def clear_faults(self, http: web.Request) -> web.Response:
        """Remove all fault rules."""
        self._state.faults.clear()
        return await self.list_faults(http)

    async def list_requests(self, _: web.Request) -> web.Response:
        """The last requests, oldest first."""
        return reply({"name": self._state.settings.name, "requests": self._state.journal.dump()})

    async def clear_requests(self, http: web.Request) -> web.Response:
        """Forget the requests so far."""
        self._state.journal.clear()
        return await self.list_requests(http)

    async def show_totals(self, _: web.Request) -> web.Response:
        """What the server has done so far."""
        return reply({"name": self._state.settings.name} | self._state.totals.dump())

    async def clear_totals(self, http: web.Request) -> web.Response:
        """Begin to count anew."""
        self._state.totals.clear()
        return await self.show_totals(http)

    def _model(self, values: dict[str, Any]) -> Model | None:
        text = values.get("model")
        model = self._state.library.find(text) if text else None
        if text and model is None:
            raise DecodeError(f"model {text!r} not found")
        return model
