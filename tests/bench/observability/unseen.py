"""A service without telemetry: `python -m tests.bench.observability.unseen [--metrics] <service>`.

The same code with a sink that keeps nothing in place of the metrics, and with traces off.
"""

import runpy
import sys

from services.common import server
from services.common.metrics import Metrics


class NoMetrics(Metrics):
    """Takes whatever is measured, and forgets it."""

    def count(self, name: str, *labels: str, amount: float = 1) -> None:
        """Does nothing."""

    def observe(self, name: str, value: float, *labels: str) -> None:
        """Does nothing."""

    def set_gauge(self, name: str, value: float, *labels: str) -> None:
        """Does nothing."""

    def add_gauge(self, name: str, difference: float, *labels: str) -> None:
        """Does nothing."""


def main() -> None:
    """Runs the service until it is told to stop."""
    *options, service = sys.argv[1:]
    if "--metrics" not in options:
        server.Metrics = NoMetrics  # type: ignore[misc]
    sys.argv[1:] = []
    runpy.run_module(f"services.{service}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
