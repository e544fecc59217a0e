"""Queries are found with their panels, resolved for a run, and say which series they need."""

import pytest

from tools.monitoring.dashboards.board import Dashboard, Section
from tools.monitoring.dashboards.kinds import lines
from tools.monitoring.dashboards.panels import Query, Search, Why
from tools.monitoring.dashboards.promql import parse
from tools.monitoring.dashboards.queries import (
    output_labels,
    panel_queries,
    resolve,
    used_metrics,
    windows,
)
from tools.monitoring.dashboards.tables import trace_lines

WHY = Why("What it shows.", "Why it matters.", "What to do.")


def test_every_query_comes_with_its_panel_its_letter_and_its_source():
    dashboard = Dashboard(
        uid="some",
        title="Some",
        question="Which?",
        group="group",
        refresh="1m",
        span="1h",
        sections=(
            Section(
                "First",
                (
                    lines(1, "Both", WHY, Query("a", "a"), Query("b", "b"), unit="s", width=12),
                    trace_lines(2, "Spans", WHY, Search("{ } | rate()", "metrics"), unit="ops"),
                ),
            ),
        ),
    )
    chosen = '{job=~"$job", instance=~"$instance"}'
    assert panel_queries(dashboard.json()) == [
        ("some", 1, "Both", "A", "prometheus", f"a{chosen}"),
        ("some", 1, "Both", "B", "prometheus", f"b{chosen}"),
        ("some", 2, "Spans", "A", "tempo", "{ } | rate()"),
    ]


def test_variables_are_replaced_in_either_spelling():
    query = 'x{job=~"$job", instance=~"${instance:pipe}"}[$__rate_interval] $__range'
    assert resolve(query) == 'x{job=~".+", instance=~".+"}[1m] 15m'
    assert resolve(query, rate_interval="5m", picked_range="1h", variables={"job": "rag"}) == (
        'x{job=~"rag", instance=~".+"}[5m] 1h'
    )


def test_a_variable_that_no_dashboard_has_is_an_error():
    with pytest.raises(KeyError):
        resolve('x{a="$unknown"}')


def test_a_metric_needs_the_labels_of_conditions_of_groups_and_of_matching():
    query = (
        'histogram_quantile(0.9, sum by (le, mode) (rate(a_bucket{cache="hit"}[5m])))'
        " / on (mode) group_left (tenant) max without (job) (b)"
    )
    assert used_metrics(query) == {
        "a_bucket": {"le", "mode", "cache", "tenant"},
        "b": {"mode", "tenant"},
    }


@pytest.mark.parametrize(
    ("query", "labels"),
    [
        ("x", None),
        ("sum(x)", set()),
        ("sum by (a) (rate(x[5m])) * 2", {"a"}),
        ("2 * sum by (a) (x)", {"a"}),
        ("time() - max by (b) (x)", {"b"}),
        ("histogram_quantile(0.5, sum by (le, c) (rate(x[5m]))) >= 0", {"c"}),
        ("topk(3, sum by (d) (x))", {"d"}),
        ("-sum by (e) (x)", {"e"}),
    ],
)
def test_the_labels_of_an_answer_follow_from_the_query(query, labels):
    assert output_labels(parse(query)) == labels


def test_all_windows_of_a_query_are_found():
    assert windows("rate(a[5m]) / increase(b[$__range]) + max_over_time(c[1h:1m])") == {
        "5m",
        "$__range",
        "1h",
    }
