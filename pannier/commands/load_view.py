"""Shows what becomes of the questions of `pannier load`."""

from collections.abc import Iterator, Sequence

from rich.text import Text

from pannier.commands.columns import Column, crop, fit_columns, fit_parts, one_line
from pannier.commands.formatting import format_ratio, format_seconds
from pannier.commands.output import Output
from pannier.load.percentiles import Distribution
from pannier.load.tally import RECENT_SECONDS, Figures, Tally

__all__ = ["live_view", "progress_line", "show_summary"]

_SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
_SHOWN_ERRORS = 8
_SHOWN_TENANTS = 10
# From here on a generator is so late that its own lateness is worth a word.
_LATE_SECONDS = 0.1

Table = Sequence[Column]


def live_view(
    tally: Tally,
    *,
    title: str,
    planned_rate: float,
    elapsed: float,
    now: float,
    width: int,
    height: int,
) -> Text:
    """Composes what is known so far, for a terminal.

    What matters most comes first, and what does not fit is left out.

    Args:
        tally: What has become of the questions.
        title: What is run, and how far it is.
        planned_rate: Questions per second that are due now.
        elapsed: Seconds since the beginning.
        now: Monotonic seconds.
        width: Cells of a line.
        height: Lines there are.
    """
    recent, total = tally.recent(now), tally.total
    seconds = max(1.0, min(elapsed, RECENT_SECONDS))
    rates = (
        (f"{planned_rate:.1f}/s planned", 1),
        (f"{recent.offered / seconds:.1f}/s due", 3),
        (f"{recent.sent / seconds:.1f}/s sent", 4),
        (f"{recent.answered / seconds:.1f}/s answered", 0),
        (f"{tally.in_flight} in flight", 2),
    )
    late = (
        (f"generator late by p99 {_time(recent.late, 0.99)}", 0),
        (f"most {_most(total.late)}", 2),
        (f"{total.refused} refused", 1),
    )
    head = [
        one_line(title),
        *(fit_parts(each, width=width, separator=" · ") for each in (rates, late)),
    ]
    tables = [_times_table(recent, total), _errors_table(tally), *_group_tables(tally)]
    parts = [head, *(fit_columns(each, width=width) for each in tables if each[0].cells)]
    spaced = sum(len(each) for each in parts) + len(parts) - 1 <= height
    lines: list[str] = []
    for part in parts:
        lines += [*([""] if spaced and lines else []), *part]
    shown = "\n".join(crop(each, width) for each in lines[: max(1, height)])
    text = Text(shown, no_wrap=True, overflow="crop")
    text.highlight_regex(r"(?m)\A.*$|^(time|error|mode|tenant) .*$", "bold")
    return text


def progress_line(tally: Tally, *, title: str, elapsed: float, now: float) -> str:
    """Writes what is known so far on a line, for a log."""
    recent = tally.recent(now)
    seconds = max(1.0, min(elapsed, RECENT_SECONDS))
    return (
        f"{one_line(title)}: {recent.offered / seconds:.1f}/s due, "
        f"{recent.answered / seconds:.1f}/s answered, {tally.in_flight} in flight, "
        f"p50 {_time(recent.whole, 0.5)}, p95 {_time(recent.whole, 0.95)}, "
        f"{tally.total.failed} failed, {tally.total.refused} refused"
    )


def show_summary(
    output: Output, tally: Tally, *, elapsed: float, answering: float, seed: int
) -> None:
    """Shows all figures of a run that has ended.

    Args:
        output: The terminal.
        tally: What has become of the questions.
        elapsed: Seconds in which they were asked.
        answering: Seconds until the last answer.
        seed: Of everything drawn.
    """
    total = tally.total
    output.line(
        f"{total.offered} questions were due in {format_seconds(elapsed)}: {total.sent} sent, "
        f"{total.refused} refused by --max-in-flight"
    )
    rate = total.answered / answering if answering > 0 else 0.0
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
    for table in (_totals_table(total), *_group_tables(tally), _errors_table(tally)):
        if table[0].cells:
            output.line()
            for line in fit_columns(table, width=output.console.width):
                output.line(line)


def _times_table(recent: Figures, total: Figures) -> Table:
    """The last seconds come first: they are what a live view is for."""
    spans = ((f"last {RECENT_SECONDS} s", recent), ("in total", total))
    rows = [
        (name, span, getattr(figures, field))
        for span, figures in spans
        for field, name in _TIMES.items()
    ]
    return (
        Column("time", 0, [name for name, _, _ in rows], "left"),
        Column("span", 0, [span for _, span, _ in rows], "left"),
        *_quantile_columns([times for _, _, times in rows]),
    )


def _totals_table(total: Figures) -> Table:
    return (
        Column("time", 0, list(_TIMES.values()), "left"),
        *_quantile_columns([getattr(total, field) for field in _TIMES]),
    )


_TIMES = {"first_text": "first text", "whole": "whole answer"}


def _quantile_columns(times: Sequence[Distribution]) -> Iterator[Column]:
    ranks = {"p50": 1, "p90": 4, "p95": 0, "p99": 3}
    for name, share in _SHARES.items():
        yield Column(name, ranks[name], [_time(each, share) for each in times])
    yield Column("most", 2, [_most(each) for each in times])


def _group_tables(tally: Tally) -> Iterator[Table]:
    for name, groups in (("mode", tally.modes), ("tenant", tally.tenants)):
        largest = sorted(groups.items(), key=lambda each: -each[1].offered)[:_SHOWN_TENANTS]
        figures = [each for _, each in largest]
        yield (
            Column(name, 0, [label for label, _ in largest], "left"),
            Column("sent", 6, [str(each.sent) for each in figures]),
            Column("answered", 1, [str(each.answered) for each in figures]),
            Column("failed", 1, [str(each.failed) for each in figures]),
            Column("cached", 4, [_ratio(each.cached_ratio) for each in figures]),
            Column("degraded", 5, [_ratio(each.degraded_ratio) for each in figures]),
            Column("p50", 3, [_time(each.whole, 0.5) for each in figures]),
            Column("p95", 0, [_time(each.whole, 0.95) for each in figures]),
            Column("p99", 2, [_time(each.whole, 0.99) for each in figures]),
        )


def _errors_table(tally: Tally) -> Table:
    most = tally.errors.most_common(_SHOWN_ERRORS)
    return (
        Column("error", 0, [reason for reason, _ in most], "left"),
        Column("times", 0, [str(count) for _, count in most]),
    )


def _time(times: Distribution, share: float) -> str:
    value = times.quantile(share)
    return "-" if value is None else format_seconds(value)


def _most(times: Distribution) -> str:
    return format_seconds(times.maximum_seconds) if times.count else "-"


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else format_ratio(ratio)
