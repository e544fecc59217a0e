"""LiteLLM's proxy, from a virtual environment of its own."""

import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench import processes
from tests.bench.balancer.contenders.port import Contender, Contending
from tests.bench.balancer.fleet import Fleet
from tests.bench.balancer.reference import CHAT_A, CHAT_B, EMBED
from tests.kit.ports import free_port

__all__ = ["contenders"]

_READY_SECONDS = 90.0
_TIMEOUT_SECONDS = 600.0
_COOLDOWN_SECONDS = 5.0
# It streams some 2,000 tokens per processor second; beyond this that would be what is measured.
_TIME_SCALE_LIMIT = 8.0
_ENVIRONMENT = {
    # On loopback only, and nobody else is to pay for authentication either.
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "ERROR",
    "LITELLM_TELEMETRY": "False",
    "LITELLM_MODE": "PRODUCTION",
    "NO_DOCS": "True",
    "NO_PROXY": "127.0.0.1",
}


def configuration(fleet: Fleet, strategy: str) -> dict[str, Any]:
    """Returns the proxy's configuration: each model on each host, limits of time scaled."""
    timeout = _TIMEOUT_SECONDS / fleet.time_scale
    deployments = [
        {
            "model_name": model.name,
            "litellm_params": {
                "model": f"{route}/{model.name}",
                "api_base": url,
                "timeout": timeout,
                "stream_timeout": timeout,
            },
        }
        for model, route in ((CHAT_A, "ollama_chat"), (CHAT_B, "ollama_chat"), (EMBED, "ollama"))
        for url in fleet.urls
    ]
    return {
        "model_list": deployments,
        "router_settings": {
            "routing_strategy": strategy,
            "num_retries": 2,
            "timeout": timeout,
            "cooldown_time": _COOLDOWN_SECONDS / fleet.time_scale,
        },
        "litellm_settings": {"request_timeout": timeout, "telemetry": False, "drop_params": True},
    }


@asynccontextmanager
async def _start(
    fleet: Fleet, folder: Path, *, home: Path, strategy: str
) -> AsyncIterator[Contending]:
    port = free_port()
    path = folder / "litellm.yaml"
    # Every JSON document is a YAML document.
    path.write_text(json.dumps(configuration(fleet, strategy), indent=1))
    command = [
        *(str(home / "bin" / "litellm"), "--config", str(path)),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    async with processes.running(
        "litellm", command, log=folder / "litellm.log", environment=_ENVIRONMENT
    ) as started:
        url = f"http://127.0.0.1:{port}"
        await processes.wait_until(
            started, f"{url}/health/liveliness", within_seconds=_READY_SECONDS
        )
        yield Contending(f"openai={url}", started.pid)


def _missing(home: Path) -> str:
    if (home / "bin" / "litellm").exists():
        return ""
    return f"python3 -m venv {home} && {home}/bin/pip install 'litellm[proxy]'"


def _version(home: Path) -> str:
    code = "import importlib.metadata; print(importlib.metadata.version('litellm'))"
    # A fixed command in the environment that the command line names.
    done = subprocess.run(
        [str(home / "bin" / "python"), "-c", code], capture_output=True, text=True, check=True
    )
    return f"litellm {done.stdout.strip()}"


def contenders(home: Path) -> tuple[Contender, ...]:
    """Lists the proxy's strategies.

    Args:
        home: Virtual environment with `litellm[proxy]`.
    """
    return tuple(
        Contender(
            name=f"litellm-{name}",
            rule=f"{strategy}, 2 retries, 600 s",
            start=partial(_start, home=home, strategy=strategy),
            missing=partial(_missing, home),
            version=partial(_version, home),
            time_scale_limit=_TIME_SCALE_LIMIT,
        )
        for name, strategy in (
            ("shuffle", "simple-shuffle"),
            ("least-busy", "least-busy"),
            ("latency", "latency-based-routing"),
        )
    )
