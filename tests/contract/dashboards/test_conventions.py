"""The dashboards keep what Grafana and their readers rely on."""

import json
import re
from itertools import combinations
from pathlib import Path

import pytest

from services.balancer.metrics import CATALOGUE as BALANCER
from services.cache.metrics import CATALOGUE as CACHE
from services.common.metrics import COMMON_METRICS, RPC_CLIENT_METRICS
from services.rag.metrics import CATALOGUE as RAG
from tools.monitoring import rules, thresholds
from tools.monitoring.dashboards.exceptions import FIXED_WINDOWS
from tools.monitoring.dashboards.promql import parse
from tools.monitoring.dashboards.queries import output_labels, panels, used_metrics, windows

ROOT = Path(__file__).resolve().parents[3]
FILES = sorted((ROOT / "dashboards").glob("*.json"))
DASHBOARDS = [json.loads(path.read_text()) for path in FILES]
PANELS = [
    pytest.param(dashboard, panel, id=f"{dashboard['uid']}-{panel['id']}")
    for dashboard in DASHBOARDS
    for panel in panels(dashboard)
]
REFERENCE_PANELS = {
    "performance-overview": 12, "cache-performance": 10, "cost-optimization": 11,
    "system-health": 10, "fleet-performance": 9, "fleet-health": 12, "business": 10,
    "deep-dive": 15,
}  # fmt: skip
REFRESH = {
    "performance-overview": "30s", "cache-performance": "30s", "cost-optimization": "1m",
    "system-health": "10s", "fleet-performance": "30s", "fleet-health": "30s", "business": "1m",
    "deep-dive": "30s", "traces": "1m",
}  # fmt: skip
KINDS = {
    "timeseries", "stat", "gauge", "bargauge", "table", "piechart", "heatmap", "nodeGraph",
    "traces", "logs",
}  # fmt: skip
# All are in packages/grafana-data/src/valueFormats/categories.ts of Grafana.
UNITS = {"none", "short", "percentunit", "reqps", "ops", "s", "bytes", "dtdurations"}
WITH_EXEMPLARS = {
    f"{metric.name}_bucket"
    for metric in (*COMMON_METRICS, *RPC_CLIENT_METRICS, *BALANCER, *CACHE, *RAG)
    if metric.has_exemplars
}
each_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda each: each["uid"])
each_panel = pytest.mark.parametrize(("dashboard", "panel"), PANELS)


def queries(panel):
    return [target["expr"] for target in panel["targets"] if "expr" in target]


def test_there_are_the_nine_dashboards_with_every_panel_of_the_plan():
    assert {each["uid"] for each in DASHBOARDS} == set(REFRESH)
    for dashboard in DASHBOARDS:
        numbers = {panel["id"] for panel in panels(dashboard)}
        planned = REFERENCE_PANELS.get(dashboard["uid"], 0)
        assert numbers == set(range(1, len(numbers) + 1))
        assert len(numbers) >= planned
    assert sum(REFERENCE_PANELS.values()) == 89


@each_dashboard
def test_a_dashboard_imports_as_it_is(dashboard):
    assert dashboard["schemaVersion"] == 41
    assert dashboard["id"] is None
    assert dashboard["version"] == 1
    assert re.fullmatch(r"[a-z0-9-]{1,40}", dashboard["uid"])
    assert not {"__inputs", "__requires", "dashboard"} & set(dashboard)
    assert "${DS_" not in json.dumps(dashboard)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_is_called_like_its_dashboard(path):
    assert json.loads(path.read_text())["uid"] == path.stem


@each_dashboard
def test_a_dashboard_is_not_edited_in_place_and_shares_its_cursor(dashboard):
    assert dashboard["editable"] is False
    assert dashboard["graphTooltip"] == 1
    assert dashboard["refresh"] == REFRESH[dashboard["uid"]]
    assert "pannier" in dashboard["tags"]
    assert len(dashboard["tags"]) == 2
    assert dashboard["title"]
    assert dashboard["description"].endswith("?")


@each_dashboard
def test_dashboards_lead_to_each_other_to_the_runbook_and_to_traces(dashboard):
    first, runbook, *traces = dashboard["links"]
    assert (first["type"], first["tags"]) == ("dashboards", ["pannier"])
    assert runbook["url"] == "${runbook}"
    assert [link["url"] for link in traces] == (
        [] if dashboard["uid"] == "traces" else ["/d/traces"]
    )


@each_dashboard
def test_ids_are_unique_in_a_dashboard(dashboard):
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))


@each_dashboard
def test_panels_fill_every_line_and_none_lies_on_another(dashboard):
    covered = {}
    for panel in dashboard["panels"]:
        grid = panel["gridPos"]
        for x in range(grid["x"], grid["x"] + grid["w"]):
            for y in range(grid["y"], grid["y"] + grid["h"]):
                assert (x, y) not in covered, (panel["title"], covered[x, y])
                covered[x, y] = panel["title"]
    height = max(y for _, y in covered) + 1
    assert set(covered) == {(x, y) for x in range(24) for y in range(height)}


@each_dashboard
def test_every_panel_stands_in_a_section(dashboard):
    assert dashboard["panels"][0]["type"] == "row"
    for first, second in zip(dashboard["panels"], dashboard["panels"][1:], strict=False):
        assert {first["type"], second["type"]} != {"row"}
    assert dashboard["panels"][-1]["type"] != "row"


@each_dashboard
def test_titles_are_unique_in_a_dashboard(dashboard):
    titles = [panel["title"] for panel in panels(dashboard)]
    assert len(titles) == len(set(titles))


@each_panel
def test_a_panel_says_what_it_shows_why_and_what_to_do(dashboard, panel):
    what, why, do = panel["description"].split("\n\n")
    assert why.startswith("**Why:** ")
    assert do.startswith("**What to do:** ")
    for part in (what, why, do):
        assert part.endswith((".", "?"))
        assert len(part.split()) >= 5
    assert panel["title"]


def test_no_two_panels_have_the_same_description():
    words = [
        (dashboard["uid"], panel["id"], panel["description"])
        for dashboard in DASHBOARDS
        for panel in panels(dashboard)
    ]
    for first, second in combinations(words, 2):
        assert first[2] != second[2], (first[:2], second[:2])


@each_panel
def test_a_panel_is_of_a_kind_that_grafana_still_has(dashboard, panel):
    assert panel["type"] in KINDS


@each_panel
def test_a_unit_is_one_of_grafanas(dashboard, panel):
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    for override in panel["fieldConfig"]["overrides"]:
        for each in override["properties"]:
            assert each["id"] != "unit" or each["value"] in UNITS


@each_panel
def test_queries_have_letters_in_order(dashboard, panel):
    letters = [target["refId"] for target in panel["targets"]]
    assert letters == list("ABCDEFGH"[: len(letters)])
    assert letters


@each_panel
def test_whatever_has_exemplars_shows_them_over_time_and_nothing_else_asks_for_them(
    dashboard, panel
):
    for target in panel["targets"]:
        metrics = set(used_metrics(target["expr"])) if "expr" in target else set()
        shows = bool(target.get("range") and metrics & WITH_EXEMPLARS)
        assert target.get("exemplar", False) is shows


@each_panel
def test_a_ratio_is_drawn_from_0_to_1_or_near_0(dashboard, panel):
    defaults = panel["fieldConfig"]["defaults"]
    if defaults["unit"] != "percentunit" or panel["type"] in ("heatmap", "table"):
        return
    assert defaults["min"] == 0
    if panel["type"] == "timeseries":
        assert (defaults.get("max") == 1) != ("axisSoftMax" in defaults["custom"])
    else:
        assert defaults["max"] == 1


@each_panel
def test_a_ratio_of_no_traffic_says_so(dashboard, panel):
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["noValue"]
    for query in queries(panel):
        # 0/0 is NaN; what is divided by must be above 0, or there is no series.
        if " / " in query and not re.fullmatch(r"[\d.]+", query.rsplit(" / ", 1)[1]):
            assert "> 0)" in query, query


@each_panel
def test_heatmaps_and_tables_ask_in_their_own_format(dashboard, panel):
    wanted = {"heatmap": "heatmap", "table": "table"}.get(panel["type"], "time_series")
    for target in panel["targets"]:
        if "expr" in target:
            assert target["format"] == wanted
            assert target["instant"] is not target["range"]


@each_panel
def test_a_table_of_metrics_is_merged_and_its_columns_are_named(dashboard, panel):
    if panel["type"] != "table" or not queries(panel):
        return
    merge, organize = panel["transformations"]
    assert (merge["id"], organize["id"]) == ("merge", "organize")
    named = organize["options"]["renameByName"]
    assert organize["options"]["excludeByName"]["Time"]
    returned = [output_labels(parse(query)) for query in queries(panel)]
    labels = {name for name in named if not name.startswith("Value")}
    for each in returned:
        assert each == labels
    values = {name for name in named if name.startswith("Value")}
    letters = [target["refId"] for target in panel["targets"]]
    several = {f"Value #{each}" for each in letters} if len(letters) > 1 else set()
    # Grafana calls the values of a query so where no other one has an answer.
    assert values == {"Value", *several}
    if several:
        assert named["Value"] == named["Value #A"]
    titles = [title for name, title in named.items() if not (several and name == "Value")]
    assert len(titles) == len(set(titles))
    for override in panel["fieldConfig"]["overrides"]:
        # What stands for a panel without data would say too much in a single cell.
        assert {"id": "noValue", "value": "-"} in override["properties"]
    for sort in panel["options"]["sortBy"]:
        assert sort["displayName"] in titles


@each_panel
def test_a_legend_names_labels_that_the_query_returns(dashboard, panel):
    for target in panel["targets"]:
        if "expr" not in target or panel["type"] == "heatmap":
            continue
        named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        returned = output_labels(parse(target["expr"]))
        if panel["type"] != "table" and returned is not None:
            assert named == returned, target["expr"]
        if panel["type"] != "table":
            assert target["legendFormat"] != "__auto"


@each_panel
def test_series_of_tempo_have_names_of_their_groups_or_of_their_own(dashboard, panel):
    for target in panel["targets"]:
        if panel["type"] == "timeseries" and "query" in target:
            named = [
                override
                for override in panel["fieldConfig"]["overrides"]
                if override["matcher"] == {"id": "byFrameRefID", "options": target["refId"]}
                and override["properties"][0]["id"] == "displayName"
            ]
            assert bool(named) != (") by (" in target["query"])


@each_panel
def test_only_listed_panels_look_back_over_a_window_of_their_own(dashboard, panel):
    own = {
        window
        for query in queries(panel)
        for window in windows(query)
        if not window.startswith("$")
    }
    assert bool(own) == ((dashboard["uid"], panel["id"]) in FIXED_WINDOWS), own


@each_panel
def test_no_panel_has_a_currency_of_its_own(dashboard, panel):
    assert "currency" not in panel["fieldConfig"]["defaults"]["unit"]
    # What a pattern has found is no amount.
    text = json.dumps(panel).replace('\\"$1\\"', "")
    assert not re.search(r"USD|EUR|[$€]\d|dollar", text)
    for target in panel["targets"]:
        metrics = set(used_metrics(target["expr"])) if "expr" in target else set()
        money = {name for name in metrics if "_cost_" in name}
        if money and panel["type"] != "table":
            assert "{{currency}}" in target["legendFormat"]


@each_panel
def test_numbers_that_mean_a_state_are_shown_as_words(dashboard, panel):
    states = {"balancer_backend_healthy", "cache_backend_up", "cache_degraded", "up"}
    counts = ("sum(", "count(")
    for query in queries(panel):
        if set(used_metrics(query)) & states and not query.startswith(counts):
            mapped = json.dumps(panel["fieldConfig"])
            assert '"type": "value"' in mapped


def _limits(panel):
    found = set()
    for place in (
        panel["fieldConfig"]["defaults"]["thresholds"],
        *(
            each["value"]
            for override in panel["fieldConfig"]["overrides"]
            for each in override["properties"]
            if each["id"] == "thresholds"
        ),
    ):
        found |= {step["value"] for step in place["steps"]}
    return found


# Alert to the line that its panel must have.
LINES = {
    "HighErrorRate": thresholds.ERROR_RATIO,
    "HighLatency": thresholds.HIGH_LATENCY_SECONDS,
    "VeryHighLatency": thresholds.VERY_HIGH_LATENCY_SECONDS,
    "LowCacheHitRate": thresholds.LOW_CACHE_HIT_RATIO,
    "CacheNearCapacity": thresholds.CACHE_FULL_RATIO,
    "HighCacheEvictionRate": thresholds.CACHE_EVICTIONS_PER_SECOND,
    "HighDailyCost": thresholds.DAILY_COST,
    "SuddenCostSpike": thresholds.COST_SPIKE_FLOOR_PER_DAY,
    "LowQualityScore": thresholds.LOW_QUALITY_SCORE,
    "HighDegradationRate": thresholds.DEGRADED_RATIO,
    # These two panels show successes.
    "ToolFailureRateHigh": 1 - thresholds.TOOL_FAILURE_RATIO,
    "RAGFailureRateHigh": 1 - thresholds.RETRIEVAL_FAILURE_RATIO,
    "HealthCheckStale": thresholds.HEALTH_CHECK_STALE_SECONDS,
    "FalseHitBudget": thresholds.FALSE_HIT_BUDGET_RATIO,
    "EventLoopLag": thresholds.EVENT_LOOP_LAG_SECONDS,
    "ErrorBudgetBurnFast": thresholds.PAGE_BURN_RATES[0].factor,
    "ErrorBudgetBurnSlow": thresholds.TICKET_BURN_RATES[0].factor,
    "LatencyBudgetBurnFast": thresholds.PAGE_BURN_RATES[0].factor,
    "LatencyBudgetBurnSlow": thresholds.TICKET_BURN_RATES[0].factor,
    "NoHealthyBackend": 1,
    "CacheDegraded": 1,
    "TargetDown": 1,
}
# They fire at any event at all, or at none coming; a line could not show it.
WITHOUT_LINE = {
    "BackendDown", "BackendStalled", "SpansDropped", "Watchdog", "IndexInvalidationsPending",
    "RagMetricsAbsent", "CacheMetricsAbsent", "BalancerMetricsAbsent",
}  # fmt: skip


@pytest.mark.parametrize("alert", rules.ALERTS, ids=lambda alert: alert.name)
def test_the_panel_of_an_alert_exists_shows_its_metrics_its_limit_and_its_runbook(alert):
    dashboard = next(each for each in DASHBOARDS if each["uid"] == alert.panel.dashboard)
    panel = next(each for each in panels(dashboard) if each["id"] == alert.panel.number)
    assert f"${{runbook}}#{alert.name.lower()}" in [link["url"] for link in panel["links"]]
    assert (alert.name in LINES) != (alert.name in WITHOUT_LINE)
    if alert.name in LINES:
        assert LINES[alert.name] in _limits(panel)


@each_panel
def test_links_of_a_panel_lead_to_alerts_that_exist_and_to_traces(dashboard, panel):
    known = {f"${{runbook}}#{alert.name.lower()}" for alert in rules.ALERTS}
    urls = [link["url"] for link in panel["links"]]
    traces = [] if dashboard["uid"] == "traces" else ["/d/traces?${__url_time_range}"]
    assert urls[len(urls) - len(traces) :] == traces
    assert set(urls[: len(urls) - len(traces)]) <= known
    assert len(urls) == len(set(urls))


def test_the_runbook_has_a_heading_for_every_link():
    runbook = (ROOT / "docs/runbook.md").read_text()
    headings = {each.lower() for each in re.findall(r"^#+ (\w+)$", runbook, re.MULTILINE)}
    linked = {
        link["url"].partition("#")[2]
        for dashboard in DASHBOARDS
        for panel in panels(dashboard)
        for link in panel["links"]
        if link["url"].startswith("${runbook}")
    }
    assert linked
    assert linked <= headings
