"""The HTTP side of a service: `/metrics`, `/healthz` and `/readyz`.

Served from a daemon thread, so that a scrape does not queue behind calls and a blocked event loop
still shows in `/healthz`.
"""

import logging
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from socket import AF_INET6
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from services.common.exposition import OPENMETRICS_TYPE, TEXT_TYPE
from services.common.metrics import Metrics

__all__ = ["OperationsServer"]

_logger = logging.getLogger(__name__)

_PLAIN = ("Content-Type", "text/plain; charset=utf-8")
# How soon a stop is noticed.
_STOP_POLL_SECONDS = 0.1
# A client that says nothing, or does not read, keeps a thread for so long.
_SILENCE_SECONDS = 10.0


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, _request: object, _client_address: object) -> None:
        """Logs what the base class prints: a client that went away, in most cases."""
        _logger.debug("request over HTTP failed", exc_info=sys.exception())


class _Server6(_Server):
    address_family = AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = _SILENCE_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Logs nothing: a scrape every few seconds is no event."""


class OperationsServer:
    """Serves metrics and health over HTTP.

    Args:
        host: Address to bind.
        port: Port to bind; 0 for any free one.
        metrics: What `/metrics` shows.
        ready: Whether `/readyz` answers 200; called in a thread of its own.
    """

    def __init__(
        self, host: str, port: int, *, metrics: Metrics, ready: Callable[[], bool]
    ) -> None:
        self._metrics = metrics
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
        try:
            return self._answer(environ, start_response)
        except Exception:
            # The library would print it.
            _logger.exception("request over HTTP failed")
            start_response("500 Internal Server Error", [_PLAIN])
            return [b"failed\n"]

    def _answer(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "GET":
            start_response("405 Method Not Allowed", [("Allow", "GET"), _PLAIN])
            return [b"only GET\n"]
        path = environ["PATH_INFO"]
        if path == "/metrics":
            self._metrics.refresh()
            openmetrics = _wants_openmetrics(environ.get("HTTP_ACCEPT", ""))
            content_type = OPENMETRICS_TYPE if openmetrics else TEXT_TYPE
            page = self._metrics.page.render(openmetrics=openmetrics)
            start_response("200 OK", [("Content-Type", content_type)])
            return [page]
        if path == "/healthz":
            status, body = "200 OK", b"ok\n"
        elif path == "/readyz" and self._ready():
            status, body = "200 OK", b"ready\n"
        elif path == "/readyz":
            status, body = "503 Service Unavailable", b"not ready\n"
        else:
            status, body = "404 Not Found", b"try /metrics, /healthz or /readyz\n"
        start_response(status, [_PLAIN])
        return [body]


def _wants_openmetrics(accept: str) -> bool:
    """Tells whether a client takes OpenMetrics at least as gladly as plain text.

    Args:
        accept: The header of the request; empty where it had none.
    """
    wishes = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for each in accept.split(","):
        media_type, *parameters = (part.strip() for part in each.lower().split(";"))
        if media_type in wishes:
            quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
            with suppress(ValueError):
                wishes[media_type] = max(wishes[media_type], float(quality))
    gladness = wishes["application/openmetrics-text"]
    return gladness > 0 and gladness >= wishes["text/plain"]
