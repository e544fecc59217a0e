"""`pannier stats balancer --watch`: what the balancer does, as it does it."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.commands.balancer_stats import (
    balancer_grids,
    balancer_lines,
    balancer_notices,
    show_balancer_stats,
)
from pannier.commands.connection import EXIT_FAILED
from pannier.commands.durations import duration
from pannier.commands.fleet import open_balancer
from pannier.commands.formatting import clean
from pannier.commands.output import Output
from pannier.commands.plain import to_plain

__all__ = ["Rate", "live_view", "watch_balancer"]

# Without a deadline of ours the service's default would end the reports after two minutes.
_WATCH_SECONDS = 30 * 86400.0

Show = Callable[[pb.GetStatsResponse], None]


class Rate:
    """How fast a count grows, between one report and the next."""

    def __init__(self) -> None:
        self._last: tuple[float, int] | None = None

    def update(self, at: float, count: int) -> float | None:
        """Takes in a count.

        Args:
            at: Monotonic seconds.
            count: The count then.

        Returns:
            Its growth per second; None for the first.
        """
        last, self._last = self._last, (at, count)
        if last is None or at <= last[0]:
            return None
        return (count - last[1]) / (at - last[0])


async def watch_balancer(
    output: Output,
    *,
    tenant: str,
    address: str,
    interval_seconds: float,
    patience_seconds: float,
    as_json: bool,
) -> int:
    """Shows reports until the balancer ends them or the task is cancelled.

    Args:
        output: Where they go: a live table on a terminal, else one after the other.
        tenant: Who asks.
        address: Where the balancer is; empty to find it.
        interval_seconds: Time between two reports, [0.1, 60].
        patience_seconds: How much longer than the interval to wait for a report.
        as_json: Write each as JSON on a line of its own.

    Returns:
        The exit status.

    Raises:
        RemoteError: The call failed.
        Unreachable: The balancer did not answer.
    """
    request = pb.WatchStatsRequest(interval=duration(interval_seconds))
    limit_seconds = interval_seconds + patience_seconds
    async with open_balancer(address, tenant) as balancer:
        reports = balancer.WatchStats(request, timeout=_WATCH_SECONDS)
        with _shown(output, as_json=as_json) as show:
            while True:
                try:
                    async with asyncio.timeout(limit_seconds):
                        report = await reports.read()
                except TimeoutError:
                    problem = f"The balancer has sent no report for {limit_seconds:g} s."
                    break
                if report is grpc.aio.EOF:
                    problem = "The balancer has ended its reports."
                    break
                show(report.stats)
    output.problem(problem)
    return EXIT_FAILED


@contextmanager
def _shown(output: Output, *, as_json: bool) -> Iterator[Show]:
    """Yields what shows a report."""
    if as_json:
        yield lambda stats: output.json_line(to_plain(stats))
    elif not output.console.is_terminal:
        yield lambda stats: _show_one_of_many(output, stats)
    else:
        rate = Rate()
        with Live(console=output.console, auto_refresh=False) as live:
            yield lambda stats: live.update(
                live_view(output, stats, rate.update(time.monotonic(), stats.fleet.request_count)),
                refresh=True,
            )


def _show_one_of_many(output: Output, stats: pb.GetStatsResponse) -> None:
    show_balancer_stats(output, stats)
    output.line()


def live_view(
    output: Output, stats: pb.GetStatsResponse, requests_per_second: float | None
) -> Group:
    """Composes a report for a terminal.

    Args:
        output: The terminal.
        stats: The report.
        requests_per_second: Since the report before; None for the first.
    """
    lines: list[RenderableType] = [Text(clean(each)) for each in balancer_lines(stats.fleet)]
    if requests_per_second is not None:
        lines.append(Text(f"{requests_per_second:.1f} requests/s"))
    lines += [Text(clean(each), style="yellow") for each in balancer_notices(stats.fleet)]
    return Group(*lines, *(output.grid(*each) for each in balancer_grids(stats)))
