"""Asks a service for its health over gRPC, as containers do: `python -m deploy.probe host:port`.

Exits with 0 where the answer is SERVING, and otherwise with 1 and the reason on standard error. A
service that is draining answers NOT_SERVING, so that nothing new is sent to it.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

__all__ = ["main"]

_SERVING = health_pb2.HealthCheckResponse.SERVING


def main(arguments: Sequence[str]) -> int:
    """Runs one check.

    Args:
        arguments: Command line without the program's name.

    Returns:
        The exit status: 0 where the service takes calls, 1 where it does not.
    """
    parser = argparse.ArgumentParser(prog="python -m deploy.probe", description=__doc__)
    parser.add_argument("address", help="where the service listens, host:port")
    parser.add_argument("--timeout", type=float, default=2.0, help="longest time in seconds")
    options = parser.parse_args(arguments)
    with grpc.insecure_channel(options.address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            response = stub.Check(health_pb2.HealthCheckRequest(), timeout=options.timeout)
        except grpc.RpcError as error:
            sys.stderr.write(f"{options.address}: {error.code().name}\n")
            return 1
    if response.status != _SERVING:
        status = health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)
        sys.stderr.write(f"{options.address}: {status}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
