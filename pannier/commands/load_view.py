"""Shows what becomes of the questions of `pannier load`."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from pannier.commands.formatting import clean, format_ratio, format_seconds
from pannier.commands.output import Output
from pannier.commands.stats_view import Grid
from pannier.load.percentiles import Distribution
from pannier.load.tally import RECENT_SECONDS, Figures, Tally

__all__ = ["live_view", "progress_line", "show_summary"]

_TIMES = ("p50", "p90", "p95", "p99")
_SHARES = (0.5, 0.9, 0.95, 0.99)
_SHOWN_ERRORS = 8
_SHOWN_TENANTS = 10
# From here on a generator is so late that its own lateness is worth a word.
_LATE_SECONDS = 0.1


def live_view(
    output: Output, tally: Tally, *, title: str, planned_rate: float, elapsed: float, now: float
) -> Group:
    """Composes what is known so far, for a terminal.

    Args:
        output: The terminal.
        tally: What has become of the questions.
        title: What is run, and how far it is.
        planned_rate: Questions per second that are due now.
        elapsed: Seconds since the beginning.
        now: Monotonic seconds.
    """
    recent, total = tally.recent(now), tally.total
    seconds = max(1.0, min(elapsed, RECENT_SECONDS))
    lines: list[RenderableType] = [
        Text(clean(title), style="bold"),
        Text(
            f"{planned_rate:.1f}/s planned · {recent.offered / seconds:.1f}/s due · "
            f"{recent.sent / seconds:.1f}/s sent · {recent.answered / seconds:.1f}/s answered · "
            f"{tally.in_flight} in flight"
        ),
        Text(f"generator late by p99 {_time(recent.late, 0.99)}, most {_most(total.late)}"),
    ]
    grids = [_times_grid(recent, total), *_groups(tally), *_errors(tally)]
    return Group(*lines, *(output.grid(*each) for each in grids if each.rows))


def progress_line(tally: Tally, *, title: str, elapsed: float, now: float) -> str:
    """Writes what is known so far on a line, for a log."""
    recent = tally.recent(now)
    seconds = max(1.0, min(elapsed, RECENT_SECONDS))
    return (
        f"{title}: {recent.offered / seconds:.1f}/s due, {recent.answered / seconds:.1f}/s "
        f"answered, {tally.in_flight} in flight, p50 {_time(recent.whole, 0.5)}, "
        f"p95 {_time(recent.whole, 0.95)}, {tally.total.failed} failed, "
        f"{tally.total.refused} refused"
    )


def show_summary(output: Output, tally: Tally, *, elapsed: float, seed: int) -> None:
    """Shows all figures of a run that has ended."""
    total = tally.total
    output.line(
        f"{total.offered} questions were due in {format_seconds(elapsed)}: {total.sent} sent, "
        f"{total.refused} refused by --max-in-flight"
    )
    rate = total.answered / elapsed if elapsed > 0 else 0.0
    output.line(
        f"{total.answered} answered ({rate:.2f}/s), {total.failed} failed, "
        f"{total.cancelled} broken off at the end; at most {tally.most_in_flight} in flight"
    )
    output.line(
        f"cached {_ratio(total.cached_ratio)}, degraded {_ratio(total.degraded_ratio)}, "
        f"errors {_ratio(total.error_ratio)}"
    )
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(tally.kinds.items()))
    output.line(f"asked: {kinds or 'nothing'}; seed {seed}")
    output.line(
        f"the generator was late by p50 {_time(total.late, 0.5)}, p99 {_time(total.late, 0.99)}, "
        f"at most {_most(total.late)}; times run from when a question was due"
    )
    late = total.late.quantile(0.99)
    if late is not None and late > _LATE_SECONDS:
        output.notice("The generator could not keep to its schedule: use less rate, or a machine.")
    for grid in (_totals_grid(total), *_groups(tally), *_errors(tally)):
        if grid.rows:
            output.line()
            output.table(*grid)


def _times_grid(recent: Figures, total: Figures) -> Grid:
    rows = [
        (name, span, *_quantiles(getattr(figures, field)), _most(getattr(figures, field)))
        for field, name in (("first_text", "first text"), ("whole", "whole answer"))
        for span, figures in ((f"last {RECENT_SECONDS} s", recent), ("in total", total))
    ]
    return Grid(("time", "span", *(f">{each}" for each in _TIMES), ">most"), rows)


def _totals_grid(total: Figures) -> Grid:
    rows = [
        (name, *_quantiles(getattr(total, field)), _most(getattr(total, field)))
        for field, name in (("first_text", "first text"), ("whole", "whole answer"))
    ]
    return Grid(("time", *(f">{each}" for each in _TIMES), ">most"), rows)


def _groups(tally: Tally) -> Iterator[Grid]:
    for name, groups in (("mode", tally.modes), ("tenant", tally.tenants)):
        largest = sorted(groups.items(), key=lambda each: -each[1].offered)[:_SHOWN_TENANTS]
        yield Grid(
            (name, ">sent", ">answered", ">failed", ">cached", ">degraded", ">p50", ">p95", ">p99"),
            [
                (
                    label,
                    str(each.sent),
                    str(each.answered),
                    str(each.failed),
                    _ratio(each.cached_ratio),
                    _ratio(each.degraded_ratio),
                    *(_time(each.whole, share) for share in (0.5, 0.95, 0.99)),
                )
                for label, each in largest
            ],
        )


def _errors(tally: Tally) -> Iterator[Grid]:
    rows: list[tuple[str, ...]] = [
        (reason, str(count)) for reason, count in tally.errors.most_common(_SHOWN_ERRORS)
    ]
    yield Grid(("error", ">times"), rows)


def _quantiles(times: Distribution) -> tuple[str, ...]:
    return tuple(_time(times, share) for share in _SHARES)


def _time(times: Distribution, share: float) -> str:
    value = times.quantile(share)
    return "-" if value is None else format_seconds(value)


def _most(times: Distribution) -> str:
    return format_seconds(times.maximum_seconds) if times.count else "-"


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else format_ratio(ratio)
