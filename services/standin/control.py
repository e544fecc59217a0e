"""`/standin/...`: orders for faults and the record of requests; never subject to faults itself."""

from aiohttp import web

from services.standin.core.decode import decode_object
from services.standin.state import State
from services.standin.wire import reply


class ControlHandlers:
    """The endpoints that the real server does not have."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def list_faults(self, _: web.Request) -> web.Response:
        """The fault rules in the order in which they apply."""
        return reply({"rules": self._state.faults.dump()})

    async def add_fault(self, http: web.Request) -> web.Response:
        """Add a fault rule."""
        self._state.faults.add(decode_object(await http.read(), "FaultRule"))
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
