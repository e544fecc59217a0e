"""Arranges the spans of a trace as a waterfall."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from pannier.commands.spans import Span
from pannier.rag.v1 import rag_service_pb2

__all__ = ["Row", "arrange", "critical_span_ids", "draw_bar", "total_seconds"]

_STAGE_PREFIX = "rag."


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a waterfall.

    Attributes:
        span: What it shows.
        depth: Levels below a root.
        offset_ratio: Where it begins, as a share of the whole trace, [0, 1].
        length_ratio: How long it took, as a share of the whole trace, [0, 1].
    """

    span: Span
    depth: int
    offset_ratio: float
    length_ratio: float

    @property
    def seconds(self) -> float:
        """How long the span took."""
        return (self.span.end_nanoseconds - self.span.start_nanoseconds) / 1e9


def total_seconds(spans: Sequence[Span]) -> float:
    """Returns the time from the first start to the last end; 0 without spans."""
    if not spans:
        return 0.0
    first, last = _limits(spans)
    return (last - first) / 1e9


def arrange(spans: Sequence[Span]) -> list[Row]:
    """Orders spans so that each follows its parent, and siblings by their start.

    A span whose parent is not among them stands at the root, and so does one in a circle of
    parents. Every span has exactly one row.
    """
    if not spans:
        return []
    first, last = _limits(spans)
    length = max(1, last - first)
    known = {each.span_id for each in spans}
    children: dict[str, list[Span]] = defaultdict(list)
    roots: list[Span] = []
    ordered = sorted(spans, key=lambda each: (each.start_nanoseconds, each.span_id))
    for span in ordered:
        if span.parent_id in known:
            children[span.parent_id].append(span)
        else:
            roots.append(span)
    rows: list[Row] = []
    shown: set[str] = set()
    for root in (*roots, *ordered):
        pending = [(root, 0)]
        while pending:
            span, depth = pending.pop()
            if span.span_id in shown:
                continue
            shown.add(span.span_id)
            offset = (span.start_nanoseconds - first) / length
            duration = max(0, span.end_nanoseconds - span.start_nanoseconds)
            rows.append(Row(span, depth, offset, duration / length))
            pending += [(child, depth + 1) for child in reversed(children[span.span_id])]
    return rows


def critical_span_ids(spans: Sequence[Span], profile: rag_service_pb2.Profile) -> frozenset[str]:
    """Returns the spans of those stages of rag that are on the critical path of an answer.

    Both come from the same recording, so the stages of a name and the spans of it have the same
    order.
    """
    by_name: dict[str, list[str]] = defaultdict(list)
    for span in sorted(spans, key=lambda each: (each.start_nanoseconds, each.span_id)):
        if span.name.startswith(_STAGE_PREFIX):
            by_name[span.name.removeprefix(_STAGE_PREFIX)].append(span.span_id)
    found = {name: iter(span_ids) for name, span_ids in by_name.items()}
    critical = {
        span_id
        for stage in profile.stages
        if (span_id := next(found.get(stage.name, iter(())), "")) and stage.on_critical_path
    }
    return frozenset(critical)


def _limits(spans: Sequence[Span]) -> tuple[int, int]:
    return (
        min(each.start_nanoseconds for each in spans),
        max(max(each.end_nanoseconds, each.start_nanoseconds) for each in spans),
    )


def draw_bar(row: Row, width: int, *, mark: str = "━") -> str:
    """Draws a span on a line of `width` characters that stands for the whole trace.

    However short, a span has one mark, and no mark is outside of the line.
    """
    begin = min(width - 1, int(row.offset_ratio * width))
    end = min(width, max(begin + 1, round((row.offset_ratio + row.length_ratio) * width)))
    return " " * begin + mark * (end - begin) + " " * (width - end)
