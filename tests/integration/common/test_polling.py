"""How the services wait for the network: chosen before gRPC is imported, and known to it."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
import {module}
assert "grpc" in sys.modules
import grpc
grpc.insecure_channel("127.0.0.1:1").close()
print(os.environ["GRPC_EXPERIMENTS"])
"""


def start(module: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # The tests themselves have chosen; what they start would inherit it.
    inherited = {name: value for name, value in os.environ.items() if name != "GRPC_EXPERIMENTS"}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(module=module)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**inherited, "GRPC_VERBOSITY": "ERROR", **environment},
    )


@pytest.mark.parametrize("service", ["balancer", "cache", "rag"])
def test_a_service_reads_its_connections_without_the_event_engine(service):
    ended = start(f"services.{service}.app")
    chosen = ended.stdout.strip().split(",")
    assert {"-event_engine_client", "-event_engine_listener"} <= set(chosen)
    # It says so of names that it does not know.
    assert "experiment" not in ended.stderr


def test_whoever_starts_a_service_may_choose_otherwise():
    assert start("services.cache.app", GRPC_EXPERIMENTS="").stdout.strip() == ""
