"""The command line of a stand-in, and its life as a process."""

import argparse
import signal
import sys
import tomllib
from asyncio import Event, get_running_loop
from collections.abc import Callable, Mapping
from pathlib import Path

import uvloop

from services.common.clock import SystemClock
from services.standin.core.profile import Profile, ProfileError, parse_profile
from services.standin.core.times import FOREVER_SECONDS, parse_duration
from services.standin.server import run_server
from services.standin.settings import Settings

_DEFAULT_CONTEXT_TOKENS = 4096


def parse_arguments(arguments: list[str], environment: Mapping[str, str]) -> Settings:
    """Read the command line, over the `OLLAMA_*` variables.

    Raises:
        SystemExit: It is wrong; the reason is on standard error.
    """
    parser = _make_parser()
    try:
        parser.set_defaults(**_read_environment(environment))
    except (ValueError, argparse.ArgumentTypeError) as error:
        parser.error(str(error))
    values = vars(parser.parse_args(arguments))
    try:
        profile = _read_profile(values.pop("profile"))
    except (OSError, tomllib.TOMLDecodeError, ProfileError) as error:
        parser.error(f"--profile: {error}")
    return Settings(**values, builtin_models=profile.builtin_models, models=profile.models)


def main(environment: Mapping[str, str]) -> None:
    """Run the command.

    Raises:
        SystemExit: The command line is wrong, or the address cannot be listened on.
    """
    settings = parse_arguments(sys.argv[1:], environment)
    try:
        uvloop.run(serve(settings))
    except OSError as error:
        raise SystemExit(f"{settings.name}: {error}") from error


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    stopped = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        get_running_loop().add_signal_handler(number, stopped.set)
    async with run_server(settings, SystemClock()) as port:
        sys.stdout.write(f"{settings.name} listening on http://{settings.host}:{port}\n")
        sys.stdout.flush()
        await stopped.wait()


def _make_parser() -> argparse.ArgumentParser:
    defaults = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m services.standin",
        description=(
            "An Ollama-like HTTP server for development, tests and benchmarks. It holds "
            "all-minilm (real embeddings), extractive-standin, which is no language model but "
            "answers with sentences of its prompt, and the synthetic models of a profile."
        ),
        epilog="The OLLAMA_* variables of the same meaning are read too; the command line wins.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )

    def option(
        name: str,
        kind: Callable[[str], object],
        about: str,
        *,
        field: str = "",
        default: object = None,
    ) -> None:
        field = field or name.removeprefix("--").replace("-", "_")
        if default is None:
            default = getattr(defaults, field)
        parser.add_argument(name, type=kind, default=default, dest=field, help=about)

    option("--host", str, "address to listen on (OLLAMA_HOST)")
    option("--port", int, "TCP port; 0 takes a free one (OLLAMA_HOST)")
    option("--name", str, "what it calls itself on the console")
    parser.add_argument("--profile", type=Path, help="TOML file that lists synthetic models")
    option("--speed", _positive, "how many times as fast it computes; loading gains the root of it")
    option("--time-scale", _positive, "how many times quicker everything is, but keep-alive")
    option("--beat-seconds", _positive, "how often a stream is written to at high token rates")
    option("--contention", _not_negative, "k active requests each run at 1/k^X of their rate")
    option(
        "--tokens-per-second",
        _positive,
        "rate of an answer, per request, of models without a rate of their own",
    )
    option("--prefill-tokens-per-second", _positive, "rate at which a prompt is read, for the same")
    option("--load-seconds", _not_negative, "how long loading such a model takes")
    option(
        "--num-parallel",
        _count,
        "requests that a chat model works on at a time (OLLAMA_NUM_PARALLEL)",
    )
    option("--max-queue", _count, "requests that may wait for a load (OLLAMA_MAX_QUEUE)")
    option(
        "--max-loaded-models",
        _count,
        "models loaded at the same time (OLLAMA_MAX_LOADED_MODELS)",
    )
    option("--memory-bytes", _whole, "what loaded models may take together; 0 is any amount")
    option(
        "--keep-alive",
        read_keep_alive,
        "how long an idle model stays loaded; negative for ever (OLLAMA_KEEP_ALIVE)",
        field="keep_alive_seconds",
        default="5m",
    )
    option(
        "--context-length",
        _count,
        "context length of requests that name none (OLLAMA_CONTEXT_LENGTH)",
        field="context_tokens",
    )
    option(
        "--load-timeout",
        read_keep_alive,
        "how long a load that makes no progress goes on (OLLAMA_LOAD_TIMEOUT)",
        field="load_timeout_seconds",
        default="5m",
    )
    option("--prompt-cache-tokens", _whole, "tokens of saved prompts that a loaded model keeps")
    option("--pull-bytes-per-second", _positive, "rate at which a model is pulled")
    return parser


def _read_environment(environment: Mapping[str, str]) -> dict[str, object]:
    """The fields that `OLLAMA_*` variables set; a variable that is empty sets nothing."""
    given = {name: value.strip().strip("\"'").strip() for name, value in environment.items()}
    found: dict[str, object] = {}
    for name, field, kind in _VARIABLES:
        if given.get(name):
            found[field] = kind(given[name])
    if given.get("OLLAMA_HOST"):
        found |= _read_host(given["OLLAMA_HOST"])
    # Both mean that the server decides.
    if found.get("context_tokens") == 0:
        found["context_tokens"] = _DEFAULT_CONTEXT_TOKENS
    if found.get("max_loaded_models") == 0:
        found["max_loaded_models"] = Settings().max_loaded_models
    if found.get("load_timeout_seconds") == 0:
        found["load_timeout_seconds"] = FOREVER_SECONDS
    return found


def _read_host(text: str) -> dict[str, object]:
    """Read `host`, `:port`, `host:port` or a URL."""
    scheme, separator, rest = text.rpartition("://")
    host, _, port = rest.partition("/")[0].rpartition(":")
    if not port.isdigit() or "]" in port:
        host, port = rest.partition("/")[0], ""
    default = {"http": 80, "https": 443}.get(scheme, 11434) if separator else 11434
    return {"host": host.strip("[]") or "127.0.0.1", "port": int(port or default)}


def _read_profile(path: Path | None) -> Profile:
    if path is None:
        return Profile()
    return parse_profile(tomllib.loads(path.read_text()))


def read_keep_alive(text: str) -> float:
    """Read a duration or a number of seconds; negative means for ever."""
    seconds = float(text) if text.lstrip("-").isdigit() else parse_duration(text)
    return FOREVER_SECONDS if seconds < 0 else seconds


def _positive(text: str) -> float:
    number = float(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"must be positive: {text}")
    return number


def _not_negative(text: str) -> float:
    number = float(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must not be negative: {text}")
    return number


def _whole(text: str) -> int:
    return int(_not_negative(text))


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1: {text}")
    return number


_VARIABLES: tuple[tuple[str, str, Callable[[str], object]], ...] = (
    ("OLLAMA_NUM_PARALLEL", "num_parallel", _count),
    ("OLLAMA_MAX_QUEUE", "max_queue", _count),
    ("OLLAMA_MAX_LOADED_MODELS", "max_loaded_models", _whole),
    ("OLLAMA_KEEP_ALIVE", "keep_alive_seconds", read_keep_alive),
    ("OLLAMA_CONTEXT_LENGTH", "context_tokens", _whole),
    ("OLLAMA_LOAD_TIMEOUT", "load_timeout_seconds", read_keep_alive),
)
