"""Takes spans and counts them: `python -m tests.bench.observability.receiver --port N --out FILE`.

Writes how many there were when it is told to stop.
"""

import argparse
import asyncio
import signal
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class CountingReceiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Counts spans."""

    def __init__(self) -> None:
        self.count = 0

    async def Export(self, request: Any, context: object) -> Any:
        """Takes spans."""
        self.count += sum(
            len(scope.spans) for batch in request.resource_spans for scope in batch.scope_spans
        )
        return trace_service_pb2.ExportTraceServiceResponse()


async def _serve(port: int, out: Path) -> None:
    receiver = CountingReceiver()
    server = grpc.aio.server()
    register: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    register(receiver, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    await server.stop(1.0)
    await asyncio.to_thread(out.write_text, str(receiver.count))


def main() -> None:
    """Serves until it is told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    asyncio.run(_serve(options.port, options.out))


if __name__ == "__main__":
    main()
