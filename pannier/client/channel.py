"""Channels to pannier's services."""

from collections.abc import Iterable
from typing import Any

import grpc

from pannier.client.wrapped_channel import WrappedChannel

__all__ = ["TENANT_HEADER", "TRACEPARENT_HEADER", "open_channel"]

TENANT_HEADER = "x-pannier-tenant-id"
TRACEPARENT_HEADER = "traceparent"

_MAXIMUM_RESPONSE_BYTES = 64 * 1024 * 1024

Pair = tuple[str, str | bytes]


def open_channel(
    address: str,
    *,
    tenant: str = "default",
    traceparent: str | None = None,
    credentials: grpc.ChannelCredentials | None = None,
    maximum_response_bytes: int = _MAXIMUM_RESPONSE_BYTES,
) -> grpc.aio.Channel:
    """Opens a channel; it connects when it is first used.

    Args:
        address: `host:port`, or any gRPC target.
        tenant: Owner of all that the calls read and write; sent with every call.
        traceparent: Trace that every call belongs to. A program with a tracer of its own leaves
            this out and passes `traceparent` in the metadata of each call.
        credentials: For TLS; None for plain text.
        maximum_response_bytes: Largest message accepted.
    """
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", maximum_response_bytes),
        ("grpc.max_send_message_length", -1),
        # A frozen peer is noticed within 25 s, also while an answer is awaited in silence.
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.http2.ping_timeout_ms", 5_000),
        ("grpc.http2.max_pings_without_data", 0),
        # A channel opened after a failure tries at once, whatever others to the address wait for.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 5_000),
    ]
    if credentials is None:
        # What is plain text stays on the local network.
        options.append(("grpc.enable_http_proxy", 0))
        channel = grpc.aio.insecure_channel(address, options=options)
    else:
        channel = grpc.aio.secure_channel(address, credentials, options=options)
    pairs: list[Pair] = [(TENANT_HEADER, tenant)]
    if traceparent is not None:
        pairs.append((TRACEPARENT_HEADER, traceparent))
    return WrappedChannel(channel, lambda _name, method: _Method(method, pairs))


class _Method:
    """A method of a service whose calls carry metadata."""

    def __init__(self, method: Any, pairs: list[Pair]) -> None:
        self._method = method
        self._pairs = pairs

    def __call__(self, *args: Any, metadata: Iterable[Pair] | None = None, **kwargs: Any) -> Any:
        own = list(metadata or ())
        named = {name for name, _ in own}
        shared = [pair for pair in self._pairs if pair[0] not in named]
        return self._method(*args, metadata=[*shared, *own], **kwargs)
