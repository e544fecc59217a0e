"""The life cycle of a service's process.

Start: stores and background loops of the service, then the gRPC port, then SERVING. Stop, on
SIGTERM or SIGINT: NOT_SERVING, a pause in which clients that watch health turn away, no new calls,
calls under way finish, then the service's loops and the exporters. A second signal leaves at once.
"""

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TypeVar

import grpc
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from opentelemetry.sdk.trace import TracerProvider

import pannier
from pannier.common.v1.error_reason_pb2 import ErrorReason
from services.common import settings as settings_module
from services.common.clock import Clock, SystemClock
from services.common.errors import ServiceError
from services.common.interceptors import CallInterceptor
from services.common.lag import LoopLag
from services.common.logs import logging_to_standard_error
from services.common.metrics import Metric, Metrics
from services.common.operations import OperationsServer
from services.common.tracing import make_tracer_provider

__all__ = ["PING_OPTIONS", "CommonSettings", "RunningServer", "Runtime", "run_main", "serve"]

_logger = logging.getLogger(__name__)
_grpc_logger = logging.getLogger("grpc._cython.cygrpc")

EXIT_BAD_SETTINGS = 64

# There from the start: a rate sees no event that brings its own series into being.
_REASON_PREFIX = "ERROR_REASON_"
_ERROR_REASONS = tuple(
    name.removeprefix(_REASON_PREFIX) for name, number in ErrorReason.items() if number
)

# gRPC refuses larger messages itself, without saying why; ours is refused first, with a reason.
_HARD_LIMIT_FACTOR = 4

PING_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    # Long prefills and ingestions are silent; the pings of a careful client must not end them. By
    # default a server hangs up on the third ping within five minutes of silence.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
"""How a server watches its clients, and lets itself be watched; for whatever stands in for one."""

# Time for the last answers to leave the process.
_FLUSH_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonSettings:
    """What every service can be told; the variables begin with the service's own prefix."""

    grpc_address: str = settings_module.setting(
        settings_module.host_and_port,
        "Address the gRPC server binds, `host:port`.",
        default="127.0.0.1:0",
    )
    http_address: str = settings_module.setting(
        settings_module.host_and_port,
        "Address of `/metrics`, `/healthz` and `/readyz`, `host:port`.",
        default="127.0.0.1:0",
    )
    log_level: str = settings_module.setting(
        settings_module.choice("debug", "info", "warning", "error"),
        "Least severe records that are logged: debug, info, warning or error.",
        default="info",
    )
    otlp_endpoint: str = settings_module.setting(
        settings_module.text,
        "`host:port` of an OTLP/gRPC receiver of traces; empty to export none.",
        default="",
    )
    trace_sample_ratio: float = settings_module.setting(
        settings_module.number(0, 1),
        "Share of the traces beginning here that are recorded; others are where their callers do.",
        default="1",
    )
    trace_queue_span_count: int = settings_module.setting(
        settings_module.integer(1, 1_000_000),
        "Most spans that wait to be sent; more are dropped and counted.",
        default="8192",
    )
    exemplar_minimum_seconds: float = settings_module.setting(
        settings_module.duration_seconds("0s", "1h"),
        "Shortest duration that points at its trace. Where a collector keeps a part of the traces "
        "only, as long as what it keeps all of.",
        default="0s",
    )
    log_queue_record_count: int = settings_module.setting(
        settings_module.integer(1, 1_000_000),
        "Most log records that wait to be written; more are dropped and counted.",
        default="10000",
    )
    environment: str = settings_module.setting(
        settings_module.text,
        "Where the process runs, for example production; stands in its traces.",
        default="development",
    )
    revision: str = settings_module.setting(
        settings_module.text,
        "Revision of the source that the process was built from; stands in its metrics.",
        default="unknown",
    )
    default_deadline_seconds: float = settings_module.setting(
        settings_module.duration_seconds("1s", "1h"),
        "Deadline of calls whose callers set none.",
        default="120s",
    )
    maximum_request_bytes: int = settings_module.setting(
        settings_module.byte_size("64KiB", "64MiB"),
        "Largest request message accepted.",
        default="4MiB",
    )
    drain_delay_seconds: float = settings_module.setting(
        settings_module.duration_seconds("0s", "60s"),
        "Time between NOT_SERVING and the end of new calls.",
        default="500ms",
    )
    drain_grace_seconds: float = settings_module.setting(
        settings_module.duration_seconds("0s", "15m"),
        "Time that calls under way have to finish.",
        default="25s",
    )
    allow_insecure: bool = settings_module.setting(
        settings_module.boolean,
        "Whether to bind an address other than loopback without TLS and authentication.",
        default="false",
    )

    def __post_init__(self) -> None:
        """Refuses to listen to strangers without protection."""
        for address in (self.grpc_address, self.http_address):
            host = address.rpartition(":")[0].strip("[]")
            if not _is_loopback(host) and not self.allow_insecure:
                raise ValueError(
                    f"{host} is no loopback address, and neither TLS nor authentication are "
                    "available yet: bind 127.0.0.1, or set ..._ALLOW_INSECURE=true on a network "
                    "you trust"
                )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a process hands to its service.

    Attributes:
        clock: Time.
        metrics: Sink of the service's metrics.
        tracer_provider: Source of tracers.
    """

    clock: Clock
    metrics: Metrics
    tracer_provider: TracerProvider


Settings = TypeVar("Settings", bound=CommonSettings)
Registration = Callable[[grpc.aio.Server], None]


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that takes calls.

    Attributes:
        grpc_port: Port bound.
        http_port: Port of metrics and health.
    """

    grpc_port: int
    http_port: int


@asynccontextmanager
async def serve(
    service_name: str,
    settings: CommonSettings,
    runtime: Runtime,
    *,
    registrations: Sequence[tuple[str, Registration]],
    ready: Callable[[], bool] = lambda: True,
) -> AsyncIterator[RunningServer]:
    """Serves gRPC and HTTP while the context is open, and drains at its end.

    Args:
        service_name: `rag`, `cache` or `balancer`.
        settings: What every service can be told.
        runtime: Clock, metrics and tracers.
        registrations: Full name of each gRPC service with what adds its servicer to a server.
        ready: Whether `/readyz` answers 200.

    Raises:
        OSError: A port is taken.
    """
    interceptor = CallInterceptor(
        service_name,
        clock=runtime.clock,
        tracer=runtime.tracer_provider.get_tracer("pannier"),
        metrics=runtime.metrics,
        default_deadline_seconds=settings.default_deadline_seconds,
        maximum_request_bytes=settings.maximum_request_bytes,
    )
    server = grpc.aio.server(
        interceptors=[interceptor], options=_server_options(settings.maximum_request_bytes)
    )
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    names = [name for name, _ in registrations]
    for _, register in registrations:
        register(server)
    reflection.enable_server_reflection(
        (*names, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    try:
        grpc_port = server.add_insecure_port(settings.grpc_address)
    except RuntimeError as error:
        raise OSError(f"cannot bind {settings.grpc_address}: {error}") from error
    interceptor.listens_at(f"{settings.grpc_address.rpartition(':')[0]}:{grpc_port}")
    host, _, port = settings.http_address.rpartition(":")
    operations = OperationsServer(host.strip("[]"), int(port), metrics=runtime.metrics, ready=ready)
    for reason in _ERROR_REASONS:
        runtime.metrics.create_series("error_type", reason)
    operations.start()
    lag = LoopLag(runtime.metrics, runtime.clock)
    await server.start()
    lag.start()
    for name in ("", *names):
        await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    _logger.info("serving", extra={"grpc_port": grpc_port, "http_port": operations.port})
    try:
        yield RunningServer(grpc_port, operations.port)
    finally:
        await health_servicer.enter_graceful_shutdown()
        await runtime.clock.sleep(settings.drain_delay_seconds)
        await interceptor.drain(settings.drain_grace_seconds)
        await runtime.clock.sleep(_FLUSH_SECONDS)
        # Only those who watch health are still there; gRPC would log each of them as an error.
        _grpc_logger.disabled = True
        await server.stop(None)
        _grpc_logger.disabled = False
        lag.stop()
        operations.stop()


def _server_options(maximum_request_bytes: int) -> list[tuple[str, int]]:
    return [
        # On by default, it would let a second process share the port by mistake.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", maximum_request_bytes * _HARD_LIMIT_FACTOR),
        # What a service sends is bounded by what it was given; clients set their own limit.
        ("grpc.max_send_message_length", -1),
        *PING_OPTIONS,
    ]


def run_main(
    service_name: str,
    settings_class: type[Settings],
    catalogue: Sequence[Metric],
    start: Callable[[Settings, Runtime], AbstractAsyncContextManager[RunningServer]],
    *,
    arguments: Sequence[str],
    environment: Mapping[str, str],
) -> int:
    """Runs a service until it is told to stop.

    Args:
        service_name: `rag`, `cache` or `balancer`.
        settings_class: Its settings.
        catalogue: Its metrics.
        start: Opens the running service.
        arguments: Command line without the program's name.
        environment: Environment variables.

    Returns:
        The exit status: 0 after an orderly stop, 1 where the start failed, 64 on bad settings.
    """
    prefix = f"PANNIER_{service_name.upper()}_"
    parser = argparse.ArgumentParser(
        prog=f"python -m services.{service_name}",
        description=f"Runs the {service_name} service. Settings come from variables {prefix}*.",
    )
    parser.add_argument("--version", action="version", version=pannier.__version__)
    parser.add_argument(
        "--check-config", action="store_true", help="check the settings and exit with 0 or 64"
    )
    parser.add_argument("--print-config", action="store_true", help="list all settings and exit")
    options = parser.parse_args(arguments)
    if options.print_config:
        for each in settings_module.describe(settings_class, prefix=prefix):
            default = "required" if each.default is None else f"default: {each.default!r}"
            sys.stdout.write(f"{each.variable}  ({default})\n    {each.help}\n")
        return 0
    try:
        settings = settings_module.load(settings_class, environment, prefix=prefix)
    except settings_module.SettingsError as error:
        for problem in error.problems:
            sys.stderr.write(f"{problem}\n")
        return EXIT_BAD_SETTINGS
    if options.check_config:
        return 0
    with logging_to_standard_error(
        service_name, level=settings.log_level, limit=settings.log_queue_record_count
    ):
        return uvloop.run(_run(service_name, settings, catalogue, start))


async def _run(
    service_name: str,
    settings: Settings,
    catalogue: Sequence[Metric],
    start: Callable[[Settings, Runtime], AbstractAsyncContextManager[RunningServer]],
) -> int:
    metrics = Metrics(
        catalogue,
        version=pannier.__version__,
        revision=settings.revision or "unknown",
        exemplar_minimum_seconds=settings.exemplar_minimum_seconds,
    )
    provider = make_tracer_provider(
        service_name,
        version=pannier.__version__,
        otlp_endpoint=settings.otlp_endpoint,
        metrics=metrics,
        # What is sent nowhere need not be recorded.
        sample_ratio=settings.trace_sample_ratio if settings.otlp_endpoint else 0.0,
        queue_span_count=settings.trace_queue_span_count,
        instance_id=str(uuid.uuid4()),
        environment=settings.environment,
    )
    runtime = Runtime(SystemClock(), metrics, provider)
    stop = _stop_on_signals()
    try:
        async with start(settings, runtime):
            # Most of what exists by now stays: looking through it again, the garbage collector
            # would stop everything for a tenth of a second each time (measured).
            gc.freeze()
            await stop.wait()
            _logger.info("stopping")
    except (OSError, ServiceError):
        _logger.exception("cannot start")
        return 1
    finally:
        await asyncio.to_thread(provider.shutdown)
    return 0


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            _logger.warning("second signal, leaving at once")
            # What has been logged is still to be written.
            logging.shutdown()
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop
