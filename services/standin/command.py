"""The command line of a stand-in, and its life as a process."""

import argparse
import asyncio
import signal
import sys

from services.common.clock import SystemClock
from services.standin.core.times import FOREVER_SECONDS, parse_duration
from services.standin.server import run_server
from services.standin.settings import Settings


def _duration(text: str) -> float:
    seconds = float(text) if text.lstrip("-").isdigit() else parse_duration(text)
    return FOREVER_SECONDS if seconds < 0 else seconds


def _positive(text: str) -> float:
    number = float(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"must be positive: {text}")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1: {text}")
    return number


def parse_arguments(arguments: list[str] | None = None) -> Settings:
    """Read the command line."""
    defaults = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m services.standin",
        description=(
            "An Ollama-like HTTP server for development, tests and benchmarks. It holds two "
            "models: all-minilm (real embeddings) and extractive-standin, which is no language "
            "model but answers with sentences of its prompt."
        ),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    option = parser.add_argument
    option("--host", default=defaults.host, help="address to listen on")
    option("--port", type=int, default=defaults.port, help="TCP port; 0 takes a free one")
    option("--name", default=defaults.name, help="what it calls itself on the console")
    option(
        "--tokens-per-second",
        type=_positive,
        default=defaults.tokens_per_second,
        help="rate of an answer, per request",
    )
    option(
        "--prefill-tokens-per-second",
        type=_positive,
        default=defaults.prefill_tokens_per_second,
        help="rate at which a prompt is read",
    )
    option(
        "--load-seconds",
        type=float,
        default=defaults.load_seconds,
        help="how long loading a model takes",
    )
    option(
        "--num-parallel",
        type=_count,
        default=defaults.num_parallel,
        help="requests that the chat model works on at a time (OLLAMA_NUM_PARALLEL)",
    )
    option(
        "--max-queue",
        type=_count,
        default=defaults.max_queue,
        help="requests that may wait for a model to be loaded (OLLAMA_MAX_QUEUE)",
    )
    option(
        "--max-loaded-models",
        type=_count,
        default=defaults.max_loaded_models,
        help="models loaded at the same time (OLLAMA_MAX_LOADED_MODELS)",
    )
    option(
        "--keep-alive",
        type=_duration,
        default="5m",
        dest="keep_alive_seconds",
        metavar="DURATION",
        help="how long an idle model stays loaded; negative for ever (OLLAMA_KEEP_ALIVE)",
    )
    return Settings(**vars(parser.parse_args(arguments)))


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with run_server(settings, SystemClock()) as port:
        sys.stdout.write(f"{settings.name} listening on http://{settings.host}:{port}\n")
        sys.stdout.flush()
        await stopped.wait()


def main() -> None:
    """Run the command.

    Raises:
        SystemExit: The command line is wrong, or the address cannot be listened on.
    """
    settings = parse_arguments()
    try:
        asyncio.run(serve(settings))
    except OSError as error:
        raise SystemExit(f"{settings.name}: {error}") from error
