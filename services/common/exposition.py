"""The page of metrics, in both formats that Prometheus asks for."""

import time
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from services.common.families import Family

__all__ = ["OPENMETRICS_TYPE", "TEXT_TYPE", "Page"]

TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

# Whoever waits for the interpreter gets it after so many lines: less than a millisecond.
_LINES_BETWEEN_PAUSES = 512
_PAUSE_SECONDS = 0.0001
_END = b"# EOF\n"


class Page:
    """Writes all metrics of a process.

    Args:
        process: What the client library knows of the process: a few lines.
        families: What the service measures: thousands.
    """

    def __init__(self, process: CollectorRegistry, families: Sequence[Family]) -> None:
        self._process = process
        self._families = families

    def render(self, *, openmetrics: bool) -> bytes:
        """Writes the page; for a thread of its own.

        Args:
            openmetrics: Whether in the OpenMetrics format, with exemplars, or as plain text.
        """
        write = generate_openmetrics if openmetrics else generate_latest
        # Half a character in the name of a model must not hide all other metrics.
        page = "".join(self._lines(openmetrics=openmetrics)).encode("utf-8", "replace")
        return write(self._process).removesuffix(_END) + page + (_END if openmetrics else b"")

    def _lines(self, *, openmetrics: bool) -> Iterator[str]:
        count = 0
        for family in self._families:
            lines = family.lines(openmetrics=openmetrics)
            yield from lines
            count += len(lines)
            if count >= _LINES_BETWEEN_PAUSES:
                count = 0
                time.sleep(_PAUSE_SECONDS)
