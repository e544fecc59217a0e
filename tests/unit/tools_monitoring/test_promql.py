"""PromQL is read as Prometheus reads it, and changed without harm to the rest."""

import pytest

from tools.monitoring.dashboards.promql import PromqlError, parse, with_matchers
from tools.monitoring.dashboards.syntax import (
    Aggregation,
    Binary,
    Call,
    Literal,
    Range,
    Selector,
    Subquery,
    Unary,
    walk,
)

JOB = {"job": '=~"$job"'}


def test_a_rate_is_read_with_its_conditions_and_its_window():
    call = parse('rate(hits_total{layer="a", result=~"hit|miss"}[$__rate_interval])')
    assert isinstance(call, Call)
    (argument,) = call.arguments
    assert isinstance(argument, Range)
    assert argument.window == "$__rate_interval"
    assert argument.selector.metric == "hits_total"
    assert argument.selector.matchers == (
        ("layer", "=", '"a"'),
        ("result", "=~", '"hit|miss"'),
    )


@pytest.mark.parametrize("query", ["sum by (a, b) (x)", "sum(x) by (a, b)"])
def test_an_aggregation_may_name_its_labels_before_or_behind(query):
    read = parse(query)
    assert isinstance(read, Aggregation)
    assert read.labels == ("a", "b")
    assert not read.without


def test_an_aggregation_with_a_number_has_it():
    read = parse("topk without (a) (10, x)")
    assert isinstance(read, Aggregation)
    assert read.parameter == Literal("10")
    assert read.without


def test_operators_bind_as_prometheus_has_them():
    read = parse("a + b * c > d and e or f")
    operators = []
    while isinstance(read, Binary):
        operators.append(read.operator)
        read = read.left if read.operator != "+" else read.right
    assert operators == ["or", "and", ">", "+", "*"]


def test_a_power_binds_to_the_right_and_before_a_sign():
    read = parse("-2 ^ 3 ^ 2")
    assert isinstance(read, Unary)
    assert isinstance(read.expression, Binary)
    assert isinstance(read.expression.right, Binary)


def test_labels_that_series_are_matched_by_are_kept():
    read = parse("a / on (x) group_left (y) b")
    assert isinstance(read, Binary)
    assert read.matching == ("x", "y")


def test_labels_that_are_ignored_need_not_be_there():
    read = parse("a / ignoring (x) b")
    assert isinstance(read, Binary)
    assert read.matching == ()


def test_a_query_may_look_at_the_end_of_the_picture():
    read = parse("increase(x[$__range] @ end())")
    assert isinstance(read, Call)
    assert isinstance(read.arguments[0], Range)
    assert with_matchers("x[1h] @ start()", JOB) == 'x{job=~"$job"}[1h] @ start()'
    with pytest.raises(PromqlError, match=r"start\(\) or end\(\)"):
        parse("x @ now()")


def test_a_subquery_is_no_plain_range():
    read = parse("max_over_time(rate(x[5m])[1h:1m])")
    assert isinstance(read, Call)
    assert isinstance(read.arguments[0], Subquery)


def test_an_offset_and_a_recorded_name_are_read():
    assert isinstance(parse("job:errors:rate5m offset 1h"), Selector)


@pytest.mark.parametrize(
    "query",
    [
        "", "sum(", "sum()", "1 2", "x[5]", "x[5m] + 1", "rate(x)", "rate(x[5m]", "unknown(x)",
        'x{a="b"', "x{a=b}", "histogram_quantile(rate(x[5m]))", "topk(x)", "sum(x[5m])",
        "max_over_time(sum(x)[1h])", "a and", "a group_left b", "5m", "x ~ y", '{job="x"}',
        'vector("a", 1, 2)', "label_replace(x, 1, 2, 3, 4)", "a / on (x) group_left (b > 0)",
    ],
)  # fmt: skip
def test_what_prometheus_would_refuse_is_refused(query):
    with pytest.raises(PromqlError):
        parse(query)


@pytest.mark.parametrize(
    ("query", "changed"),
    [
        ("x", 'x{job=~"$job"}'),
        ("x{}", 'x{job=~"$job"}'),
        ('x{a="}"}', 'x{a="}", job=~"$job"}'),
        ("sum by (job) (rate(x[5m]))", 'sum by (job) (rate(x{job=~"$job"}[5m]))'),
        ('a{b="c"} / on (job) d', 'a{b="c", job=~"$job"} / on (job) d{job=~"$job"}'),
        ("time() - x", 'time() - x{job=~"$job"}'),
        ('label_replace(x, "sum", "$1", "x", "(x)")',
         'label_replace(x{job=~"$job"}, "sum", "$1", "x", "(x)")'),
    ],
)  # fmt: skip
def test_a_condition_goes_into_every_selector_and_nowhere_else(query, changed):
    assert with_matchers(query, JOB) == changed


def test_conditions_once_added_can_be_read_again():
    query = with_matchers("sum(rate(a[5m])) / sum(rate(b[5m]))", {**JOB, "instance": '=~".+"'})
    selectors = [each for each in walk(parse(query)) if isinstance(each, Selector)]
    assert [[label for label, _, _ in each.matchers] for each in selectors] == [
        ["job", "instance"],
        ["job", "instance"],
    ]
