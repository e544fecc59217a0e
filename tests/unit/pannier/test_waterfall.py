"""The order of a waterfall and the bars in it."""

from hypothesis import given
from hypothesis import strategies as st

from pannier.commands.spans import Span
from pannier.commands.waterfall import Row, arrange, draw_bar, total_seconds


def span(span_id: str, parent_id: str = "", start: int = 0, end: int = 10) -> Span:
    return Span(
        span_id=span_id,
        parent_id=parent_id,
        service="rag",
        name=span_id,
        start_nanoseconds=start,
        end_nanoseconds=end,
        attributes={},
    )


def shape(spans: list[Span]) -> list[tuple[str, int]]:
    return [(row.span.span_id, row.depth) for row in arrange(spans)]


spans_of_any_shape = st.lists(
    st.builds(
        span,
        span_id=st.sampled_from("abcdefgh"),
        parent_id=st.sampled_from(["", *"abcdefghxyz"]),
        start=st.integers(0, 100),
        end=st.integers(0, 100),
    ),
    unique_by=lambda each: each.span_id,
)


def test_children_follow_their_parent_by_start():
    spans = [span("late", "root", 5), span("root"), span("early", "root", 1), span("in", "early")]
    assert shape(spans) == [("root", 0), ("early", 1), ("in", 2), ("late", 1)]


def test_a_span_without_its_parent_stands_at_the_root():
    assert shape([span("lost", "unknown")]) == [("lost", 0)]


def test_a_circle_of_parents_is_still_shown():
    assert sorted(name for name, _ in shape([span("a", "b"), span("b", "a")])) == ["a", "b"]


def test_no_spans_have_no_rows_and_no_length():
    assert arrange([]) == []
    assert total_seconds([]) == 0


@given(spans_of_any_shape)
def test_every_span_has_exactly_one_row(spans: list[Span]):
    rows = arrange(spans)
    assert sorted(row.span.span_id for row in rows) == sorted(each.span_id for each in spans)


@given(spans_of_any_shape)
def test_every_row_lies_within_the_trace(spans: list[Span]):
    for row in arrange(spans):
        assert 0 <= row.offset_ratio <= 1
        assert 0 <= row.length_ratio <= 1


def test_a_span_has_its_place_in_the_whole_trace():
    rows = arrange([span("root", "", 100, 200), span("half", "root", 150, 175)])
    assert (rows[1].offset_ratio, rows[1].length_ratio) == (0.5, 0.25)
    assert rows[1].seconds == 25e-9
    assert total_seconds([row.span for row in rows]) == 100e-9


def test_a_bar_stands_where_its_span_was():
    rows = arrange([span("root", "", 0, 100), span("half", "root", 50, 75)])
    assert draw_bar(rows[1], 8, mark="=") == "    ==  "


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 80))
def test_a_bar_fills_its_line_and_is_never_empty(offset: float, length: float, width: int):
    bar = draw_bar(Row(span("a"), 0, offset, length), width)
    assert len(bar) == width
    assert bar.strip()
