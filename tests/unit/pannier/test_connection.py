"""Where the services are looked for."""

import asyncio
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest
import typer
from typer.testing import CliRunner

import pannier
from deploy.local.state import Addresses, StackState, StateFile
from pannier.client import open_channel
from pannier.commands.application import application
from pannier.commands.connection import EXIT_INTERRUPTED, find_address, find_trace_url, run


@pytest.fixture
def stack(tmp_path: Path) -> dict[str, str]:
    """The environment of a folder in which a stack is recorded."""
    addresses = Addresses(
        rag="127.0.0.1:1", cache="127.0.0.1:2", balancer="127.0.0.1:3", trace_url="http://t"
    )
    StateFile(tmp_path).write(StackState(addresses=addresses))
    return {"PANNIER_HOME": str(tmp_path)}


def test_the_option_comes_first(stack):
    environment = stack | {"PANNIER_CLIENT_RAG_ADDRESS": "from:1"}
    assert find_address("rag", "option:1", environment) == "option:1"


def test_the_environment_comes_before_the_recorded_stack(stack):
    assert find_address("cache", "", stack | {"PANNIER_CLIENT_CACHE_ADDRESS": "from:1"}) == "from:1"


def test_the_recorded_stack_comes_before_the_defaults(stack):
    assert find_address("balancer", "", stack) == "127.0.0.1:3"
    assert find_trace_url(stack) == "http://t"


def test_without_anything_the_defaults_hold(tmp_path):
    nowhere = {"PANNIER_HOME": str(tmp_path)}
    assert find_address("rag", "", nowhere) == "127.0.0.1:50051"
    assert find_trace_url(nowhere) == "http://127.0.0.1:3417"


def test_a_trace_url_of_ones_own_is_used(stack):
    assert (
        find_trace_url(stack | {"PANNIER_TRACE_URL": "http://tempo:3200/"}) == "http://tempo:3200"
    )


def test_metadata_of_one_call_wins_over_that_of_its_channel(services):
    async def call() -> None:
        async with open_channel(services.address, tenant="one", traceparent="t") as channel:
            method = channel.unary_unary("/pannier.rag.v1.RagService/GetStats")
            with pytest.raises(grpc.aio.AioRpcError):
                await method(b"", timeout=5, metadata=[("x-pannier-tenant-id", "two")])

    asyncio.run(call())
    assert services.metadata["x-pannier-tenant-id"] == "two"
    assert services.metadata["traceparent"] == "t"


def test_an_interrupt_ends_a_waiting_command_whichever_thread_it_comes_to():
    saved_by_the_watchdog = threading.Event()

    def interrupt_own_thread() -> None:
        # For the loop to be waiting; there is nothing that says it is.
        time.sleep(0.1)
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    async def main(_output: object) -> int:
        def save() -> None:
            saved_by_the_watchdog.set()
            loop.call_soon_threadsafe(lambda: None)

        loop = asyncio.get_running_loop()
        threads = threading.Timer(10, save), threading.Thread(target=interrupt_own_thread)
        for each in threads:
            each.start()
        try:
            await asyncio.Event().wait()
        finally:
            threads[0].cancel()
            for each in threads:
                each.join()
        return 0

    with pytest.raises(typer.Exit) as ended:
        run(main)
    assert ended.value.exit_code == EXIT_INTERRUPTED
    assert not saved_by_the_watchdog.is_set()


def test_a_second_interrupt_ends_a_command_that_does_not_stop_at_the_first():
    async def main(_output: object) -> int:
        signal.raise_signal(signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(0)
            pytest.fail("went on after the second interrupt")
        return 0

    with pytest.raises(typer.Exit) as ended:
        run(main)
    assert ended.value.exit_code == EXIT_INTERRUPTED


def test_the_version_is_shown():
    result = CliRunner().invoke(application, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"{pannier.__version__}\n")


def test_missing_packages_are_named_with_what_to_do():
    script = (
        "import sys; sys.modules['typer'] = None\nfrom pannier.commands.main import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr == (
        "The pannier command needs two more packages: pip install 'pannier[cli]'\n"
    )
