"""Dashboards are laid out line by line, and refuse what does not fit."""

import pytest

from tools.monitoring.dashboards.board import Dashboard, Section
from tools.monitoring.dashboards.kinds import gauge, lines, stat
from tools.monitoring.dashboards.panels import Query, Why, above, below
from tools.monitoring.dashboards.tables import Column, table

WHY = Why("What it shows.", "Why it matters.", "What to do.")


def panel(number, width=8, height=8, **more):
    return lines(
        number, f"Panel {number}", WHY, Query("x", "x"), unit="s", width=width, height=height,
        **more,
    )  # fmt: skip


def board(*panels):
    return Dashboard(
        uid="some",
        title="Some",
        question="Which?",
        group="group",
        refresh="1m",
        span="1h",
        sections=(Section("First", panels),),
    )


def test_panels_go_from_left_to_right_and_line_by_line():
    placed = board(panel(1), panel(2), panel(3), panel(4, width=24, height=5)).json()["panels"]
    assert [tuple(each["gridPos"].values()) for each in placed] == [
        (1, 24, 0, 0),
        (8, 8, 0, 1),
        (8, 8, 8, 1),
        (8, 8, 16, 1),
        (5, 24, 0, 9),
    ]


@pytest.mark.parametrize(
    "panels",
    [
        [panel(1)],
        [panel(1, width=16), panel(2, width=16)],
        [panel(1, width=12), panel(2, width=12, height=9)],
    ],
)
def test_a_line_that_is_not_full_or_of_several_heights_is_refused(panels):
    with pytest.raises(ValueError, match="line"):
        board(*panels).json()


def test_a_panel_leads_to_the_runbook_of_its_alerts_and_to_traces():
    built = panel(1, alerts=("HighLatency",)).json(x=0, y=0, dashboard_uid="some")
    assert [link["url"] for link in built["links"]] == [
        "${runbook}#highlatency",
        "/d/traces?${__url_time_range}",
    ]


def test_limits_go_from_good_to_bad_or_from_bad_to_good():
    assert above(10, 5).steps == (("green", None), ("yellow", 5), ("red", 10))
    assert above(10).steps == (("green", None), ("red", 10))
    assert below(0.4, 0.6).steps == (("red", None), ("yellow", 0.4), ("green", 0.6))
    assert below(0.8).steps == (("red", None), ("green", 0.8))


def test_a_table_names_its_columns_and_hides_those_without_a_name():
    built = table(
        1,
        "Table",
        WHY,
        Query("sum by (a) (x)"),
        Query("sum by (a) (y)"),
        labels={"a": "Name"},
        columns=(Column("Count", decimals=0), Column("")),
        sort_by="Count",
    ).json(x=0, y=0, dashboard_uid="some")
    organize = built["transformations"][1]["options"]
    # Without an answer to the other query Grafana calls this one's value otherwise.
    assert organize["renameByName"] == {"a": "Name", "Value #A": "Count", "Value": "Count"}
    assert organize["indexByName"] == {"a": 0, "Value #A": 1, "Value": 1}
    assert organize["excludeByName"] == {"Time": True, "Value #B": True}
    assert built["targets"][0]["format"] == "table"


def test_gauges_and_stats_ask_for_the_moment():
    meter = gauge(1, "Gauge", WHY, Query("x"), unit="s", most=2, limits=above(1))
    figure = stat(1, "Stat", WHY, Query("x"), unit="s")
    for each in (meter, figure):
        (target,) = each.json(x=0, y=0, dashboard_uid="some")["targets"]
        assert (target["instant"], target["range"]) == (True, False)
