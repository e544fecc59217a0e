"""Services whose answers a test writes down, on a real port, and the command line to call them."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from typer.testing import CliRunner, Result

from pannier.balancer.v1 import balancer_service_pb2_grpc
from pannier.cache.v1 import cache_admin_service_pb2_grpc, cache_service_pb2_grpc
from pannier.commands.application import application
from pannier.rag.v1 import (
    corpus_service_pb2_grpc,
    rag_service_pb2_grpc,
    usage_service_pb2_grpc,
)

Answer = Callable[[Any, grpc.ServicerContext], Any]

_SERVICERS = (
    (rag_service_pb2_grpc, "RagService"),
    (corpus_service_pb2_grpc, "CorpusService"),
    (usage_service_pb2_grpc, "UsageService"),
    (usage_service_pb2_grpc, "UsageAdminService"),
    (cache_service_pb2_grpc, "CacheService"),
    (cache_admin_service_pb2_grpc, "CacheAdminService"),
    (balancer_service_pb2_grpc, "BalancerService"),
    (balancer_service_pb2_grpc, "BalancerAdminService"),
)


@pytest.fixture
def refuse() -> Callable[[grpc.ServicerContext, grpc.StatusCode, str, str], None]:
    """Returns what ends a call as a pannier service does."""
    return _refuse


def _refuse(
    context: grpc.ServicerContext, code: grpc.StatusCode, reason: str, message: str
) -> None:
    status = status_pb2.Status(code=code.value[0], message=message)
    info = error_details_pb2.ErrorInfo(reason=reason, domain="rag.pannier")
    status.details.add().Pack(info)
    context.abort_with_status(rpc_status.to_status(status))


@dataclass
class ScriptedServices:
    """All services at one address.

    Attributes:
        address: Where they are.
        answers: What to do by method name.
        metadata: What the last call brought along.
        deadlines: What each call was given, in seconds.
        cancelled: Set when a caller has gone away.
    """

    address: str = ""
    answers: dict[str, Answer] = field(default_factory=dict)
    metadata: dict[str, str | bytes] = field(default_factory=dict)
    deadlines: list[float | None] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def answer(self, method: str, request: Any, context: grpc.ServicerContext) -> Any:
        self.metadata = dict(context.invocation_metadata())
        self.deadlines.append(context.time_remaining())
        return self.answers[method](request, context)

    def run(self, *arguments: str) -> Result:
        """Runs the command line."""
        return CliRunner().invoke(application, [*arguments, "--address", self.address])

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Runs the command line in a process of its own."""
        command = (sys.executable, "-m", "pannier.commands.main", *arguments)
        return subprocess.Popen(
            [*command, "--address", self.address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServices]:
    """Yields services that answer nothing yet."""
    monkeypatch.setenv("PANNIER_HOME", str(tmp_path / "home"))
    for name in ("PANNIER_TENANT", "PANNIER_TRACE_URL", "PANNIER_CLIENT_RAG_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    scripted = ScriptedServices()
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    for module, name in _SERVICERS:
        base = getattr(module, f"{name}Servicer")
        methods = {
            method: lambda _self, request, context, method=method: scripted.answer(
                method, request, context
            )
            for method in vars(base)
            if not method.startswith("_")
        }
        getattr(module, f"add_{name}Servicer_to_server")(type(name, (base,), methods)(), server)
    scripted.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield scripted
    finally:
        server.stop(0).wait()
