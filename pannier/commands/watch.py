"""`pannier stats ... --watch`: what a service does, as it does it."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from pannier.commands.connection import EXIT_FAILED, connect
from pannier.commands.formatting import clean
from pannier.commands.output import Output
from pannier.commands.plain import to_plain
from pannier.commands.stats_view import StatsView

__all__ = ["Rate", "watch_stats"]

# Without a deadline of ours the service's default would end the reports after two minutes.
_WATCH_SECONDS = 30 * 86400.0

Show = Callable[[Any], None]


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


async def watch_stats(
    output: Output,
    view: StatsView,
    *,
    tenant: str,
    address: str,
    interval_seconds: float,
    patience_seconds: float,
    as_json: bool,
) -> int:
    """Shows reports until the service ends them or the task is cancelled.

    Args:
        output: Where they go: a live table on a terminal, else one after the other.
        view: Which service, and how its reports are shown; it can be watched.
        tenant: Who asks.
        address: Where the service is; empty to find it.
        interval_seconds: Time between two reports, [0.1, 60].
        patience_seconds: How much longer than the interval to wait for a report.
        as_json: Write each as JSON on a line of its own.

    Returns:
        The exit status.

    Raises:
        RemoteError: The call failed.
        Unreachable: The service did not answer.
        ValueError: The service cannot be watched.
    """
    if view.make_watch_request is None:
        raise ValueError(f"{view.service} cannot be watched")
    request = view.make_watch_request(interval_seconds)
    limit_seconds = interval_seconds + patience_seconds
    async with connect(view.service, address=address, tenant=tenant) as connection:
        stub = view.make_stub(connection.channel)
        reports = stub.WatchStats(request, timeout=_WATCH_SECONDS)
        with _shown(output, view, as_json=as_json) as show:
            while True:
                try:
                    async with asyncio.timeout(limit_seconds):
                        report = await reports.read()
                except TimeoutError:
                    problem = f"The {view.service} has sent no report for {limit_seconds:g} s."
                    break
                if report is grpc.aio.EOF:
                    problem = f"The {view.service} has ended its reports."
                    break
                show(report.stats)
    output.problem(problem)
    return EXIT_FAILED


@contextmanager
def _shown(output: Output, view: StatsView, *, as_json: bool) -> Iterator[Show]:
    """Yields what shows a report."""
    if as_json:
        yield lambda stats: output.json_line(to_plain(stats))
    elif not output.console.is_terminal:
        yield lambda stats: _show_one_of_many(output, view, stats)
    else:
        rate = Rate()
        with Live(console=output.console, auto_refresh=False) as live:
            yield lambda stats: live.update(
                _live_view(
                    output, view, stats, rate.update(time.monotonic(), view.activity(stats))
                ),
                refresh=True,
            )


def _show_one_of_many(output: Output, view: StatsView, stats: Any) -> None:
    view.show(output, stats)
    output.line()


def _live_view(output: Output, view: StatsView, stats: Any, per_second: float | None) -> Group:
    """Composes a report for a terminal.

    Args:
        output: The terminal.
        view: How reports are shown.
        stats: The report.
        per_second: How busy the service has been since the report before; None for the first.
    """
    lines: list[RenderableType] = [Text(clean(each)) for each in view.lines(stats)]
    if per_second is not None:
        lines.append(Text(f"{per_second:.1f} {view.activity_name}/s"))
    lines += [Text(clean(each), style="yellow") for each in view.notices(stats)]
    return Group(*lines, *(output.grid(*each) for each in view.tables(stats)))
