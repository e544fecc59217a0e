"""A server hangs up on clients that ping more often than it allows, in the midst of their calls.

How gRPC keeps count was seen over minutes: at the default of a server, a client that pings every
10 s is cut off after 50 s of silence; with these options it is not.
"""

import grpc
import pytest
from opentelemetry.trace import NoOpTracer

from pannier.client.channel import open_channel as open_public_channel
from services.common.channels import open_channel
from services.common.server import PING_OPTIONS


@pytest.mark.parametrize(
    "connect",
    [
        open_public_channel,
        lambda address: open_channel(address, tracer=NoOpTracer(), maximum_message_bytes=1),
    ],
    ids=["client", "service"],
)
async def test_servers_allow_the_pings_of_our_clients_during_silence(connect, monkeypatch):
    seen = {}
    make = grpc.aio.insecure_channel

    def watched(address, *, options, **others):
        seen.update(options)
        return make(address, options=options, **others)

    monkeypatch.setattr(grpc.aio, "insecure_channel", watched)
    await connect("127.0.0.1:1").close()
    allowed = dict(PING_OPTIONS)
    # A ping may be on its way for some time, so those that arrive are less evenly spaced.
    least_ms = 2 * allowed["grpc.http2.min_ping_interval_without_data_ms"]
    assert seen["grpc.keepalive_time_ms"] >= least_ms
    assert seen["grpc.http2.max_pings_without_data"] == 0
