"""A channel that does something of its own with every call."""

from collections.abc import Callable
from typing import Any, Self

import grpc

__all__ = ["Method", "WrappedChannel"]

Method = Callable[..., Any]
"""What begins a call, with the arguments that gRPC's own take."""


class WrappedChannel(grpc.aio.Channel):
    """A channel whose methods are wrapped.

    No interceptor: each costs a call two tasks and two turns of the event loop, and intercepted
    streams lose part of what a call can do, cancellation first.

    Args:
        channel: The channel; closed with this one.
        wrap: Given the full name of a method, without a slash before it, and what begins its
            calls, returns what is to begin them.
    """

    def __init__(self, channel: grpc.aio.Channel, wrap: Callable[[str, Method], Method]) -> None:
        self._channel = channel
        self._wrap = wrap

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close(None)

    async def close(self, grace: float | None = None) -> None:
        """Closes the channel; calls under way are cancelled after `grace` seconds."""
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT001, FBT002 - as the base class has it
        """Returns the state of the connection."""
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Waits until the connection leaves a state."""
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Waits until the connection is made."""
        await self._channel.channel_ready()

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Makes a method with one request and one response."""
        return self._wrapped(method, self._channel.unary_unary(method, *args, **kwargs))

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Makes a method with one request and many responses."""
        return self._wrapped(method, self._channel.unary_stream(method, *args, **kwargs))

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Makes a method with many requests and one response."""
        return self._wrapped(method, self._channel.stream_unary(method, *args, **kwargs))

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Makes a method with many requests and many responses."""
        return self._wrapped(method, self._channel.stream_stream(method, *args, **kwargs))

    def _wrapped(self, name: str, method: Method) -> Method:
        return self._wrap(name.removeprefix("/"), method)
