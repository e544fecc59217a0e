"""The HTTP side of a service: `/metrics`, `/healthz` and `/readyz`.

Served from a daemon thread, so that a scrape does not queue behind calls and a blocked event loop
still shows in `/healthz`.
"""

import threading
from collections.abc import Callable, Iterable
from socket import AF_INET6
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

__all__ = ["OperationsServer"]


# How soon a stop is noticed.
_STOP_POLL_SECONDS = 0.1


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Server6(_Server):
    address_family = AF_INET6


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Logs nothing: a scrape every few seconds is no event."""


class OperationsServer:
    """Serves metrics and health over HTTP.

    Args:
        host: Address to bind.
        port: Port to bind; 0 for any free one.
        registry: What `/metrics` shows.
        ready: Whether `/readyz` answers 200; called in a thread of its own.
    """

    def __init__(
        self, host: str, port: int, *, registry: CollectorRegistry, ready: Callable[[], bool]
    ) -> None:
        self._metrics = make_wsgi_app(registry, disable_compression=True)
        self._ready = ready
        self._server = make_server(
            host,
            port,
            self._respond,
            server_class=_Server6 if ":" in host else _Server,
            handler_class=_Handler,
        )
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": _STOP_POLL_SECONDS},
            name="operations",
            daemon=True,
        )

    @property
    def port(self) -> int:
        """The port bound."""
        return self._server.server_port

    def start(self) -> None:
        """Begins to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Ends serving; blocks for a tenth of a second at most."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _respond(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            page: Iterable[bytes] = self._metrics(environ, start_response)
            return page
        if path == "/healthz":
            status, body = "200 OK", b"ok\n"
        elif path == "/readyz" and self._ready():
            status, body = "200 OK", b"ready\n"
        elif path == "/readyz":
            status, body = "503 Service Unavailable", b"not ready\n"
        else:
            status, body = "404 Not Found", b"try /metrics, /healthz or /readyz\n"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [body]
