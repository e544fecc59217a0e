"""What the services choose for libraries that read it when they are imported."""

import os
import subprocess
import sys

import pytest

EXPERIMENTS, THREADS = "GRPC_EXPERIMENTS", "OPENBLAS_NUM_THREADS"
PROGRAM = """
import os, sys
import {module}
assert {{"grpc", "numpy"}} <= set(sys.modules)
import grpc
grpc.insecure_channel("127.0.0.1:1").close()
print(os.environ["{variable}"])
"""


def start(service: str, variable: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # The tests themselves have chosen; what they start would inherit it.
    inherited = {name: each for name, each in os.environ.items() if name != variable}
    return subprocess.run(
        [
            sys.executable,
            "-c",
            PROGRAM.format(module=f"services.{service}.app", variable=variable),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**inherited, "GRPC_VERBOSITY": "ERROR", **environment},
    )


@pytest.mark.parametrize("service", ["balancer", "cache", "rag"])
def test_a_service_reads_its_connections_without_the_event_engine(service):
    ended = start(service, EXPERIMENTS)
    chosen = ended.stdout.strip().split(",")
    assert {"-event_engine_client", "-event_engine_listener"} <= set(chosen)
    # It says so of names that it does not know.
    assert "experiment" not in ended.stderr


@pytest.mark.parametrize("service", ["cache", "rag"])
def test_products_of_vectors_wait_for_no_other_core(service):
    assert start(service, THREADS).stdout.strip() == "1"


@pytest.mark.parametrize(("variable", "chosen"), [(EXPERIMENTS, ""), (THREADS, "2")])
def test_whoever_starts_a_service_may_choose_otherwise(variable, chosen):
    assert start("cache", variable, **{variable: chosen}).stdout.strip() == chosen
