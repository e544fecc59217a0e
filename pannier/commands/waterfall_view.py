"""Shows a trace as a waterfall."""

from rich import box
from rich.table import Table
from rich.text import Text

from pannier.commands.formatting import clean, format_seconds, shorten
from pannier.commands.output import Output
from pannier.commands.spans import Span
from pannier.commands.traces import FetchedTrace
from pannier.commands.waterfall import arrange, critical_span_ids, draw_bar, total_seconds
from pannier.rag.v1 import rag_service_pb2

__all__ = ["describe_span", "show_waterfall"]

_BAR_CHARACTERS = 32
_NAME_CHARACTERS = 60
_CRITICAL = "◆"
_COLOURS = ("cyan", "green", "magenta", "blue", "yellow")


def show_waterfall(
    output: Output, trace: FetchedTrace, profile: rag_service_pb2.Profile | None = None
) -> None:
    """Shows every span below its parent, with its place in the whole trace.

    Args:
        output: Where it goes.
        trace: The spans.
        profile: What rag says of the same call, for the critical path and the advice.
    """
    rows = arrange(trace.spans)
    critical = critical_span_ids(trace.spans, profile) if profile is not None else frozenset()
    services = list(dict.fromkeys(row.span.service for row in rows))
    output.line()
    output.line(
        f"{len(rows)} spans of {', '.join(services)} in "
        f"{format_seconds(total_seconds(trace.spans))}",
        style="bold",
    )
    terminal = output.console.is_terminal
    table = Table(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False)
    table.add_column("service", no_wrap=True)
    table.add_column("span", no_wrap=True)
    table.add_column("", no_wrap=True, width=_BAR_CHARACTERS)
    table.add_column("", no_wrap=True)
    table.add_column("took", justify="right", no_wrap=True)
    for row in rows:
        span = row.span
        colour = "red" if span.failed else _COLOURS[services.index(span.service) % len(_COLOURS)]
        name = shorten(describe_span(span), _NAME_CHARACTERS)
        table.add_row(
            Text(clean(span.service)),
            Text("  " * row.depth + name, style="red" if span.failed else ""),
            Text(draw_bar(row, _BAR_CHARACTERS), style=colour),
            Text(_CRITICAL if span.span_id in critical else ""),
            Text(format_seconds(row.seconds) + (" failed" if span.failed else "")),
        )
    output.console.print(table)
    for gap in trace.gaps:
        output.notice(f"incomplete: {gap}")
    if profile is not None:
        _show_profile(output, profile)


def _show_profile(output: Output, profile: rag_service_pb2.Profile) -> None:
    path = profile.critical_path.ToNanoseconds() / 1e9
    total = profile.total.ToNanoseconds() / 1e9
    saving = profile.parallel_saving.ToNanoseconds() / 1e9
    parts = [f"{_CRITICAL} critical path {format_seconds(path)} of {format_seconds(total)}"]
    if saving > 0:
        parts.append(f"working in parallel saved {format_seconds(saving)}")
    if profile.bottlenecks:
        parts.append(f"most of it {', '.join(profile.bottlenecks)}")
    output.line(" · ".join(parts))
    for each in profile.advice:
        output.line(f"advice: {each}")


def describe_span(span: Span) -> str:
    """Names a span shortly: calls by method and direction, others as they are named."""
    if span.attributes.get("rpc.system.name") == "grpc":
        service, _, method = span.name.rpartition("/")
        name = f"{service.rpartition('.')[2]}/{method}"
        return f"call {name}" if span.kind == "client" else name
    host = span.attributes.get("server.address")
    if span.kind == "client" and host:
        port = span.attributes.get("server.port")
        return f"{span.name} @ {host}:{port}" if port else f"{span.name} @ {host}"
    return span.name
