"""No panel that lies: what a query shows is what its panel says, also when things are away."""

import json
import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import typer.main

from pannier.commands.application import application
from services.balancer.metrics import CATALOGUE as BALANCER
from services.cache.metrics import CATALOGUE as CACHE
from services.common.metrics import COMMON_METRICS, RPC_CLIENT_METRICS, MetricKind
from services.rag.metrics import CATALOGUE as RAG
from tools.monitoring.dashboards.promql import parse
from tools.monitoring.dashboards.queries import output_labels, panel_queries, panels
from tools.monitoring.dashboards.syntax import (
    Aggregation,
    Binary,
    Call,
    Selector,
    children,
    walk,
)

ROOT = Path(__file__).resolve().parents[3]
DASHBOARDS = [json.loads(path.read_text()) for path in sorted((ROOT / "dashboards").glob("*.json"))]
QUERIES = [
    query
    for dashboard in DASHBOARDS
    for query in panel_queries(dashboard)
    if query.datasource_type == "prometheus"
]
PANELS = [
    pytest.param(dashboard, panel, id=f"{dashboard['uid']}-{panel['id']}")
    for dashboard in DASHBOARDS
    for panel in panels(dashboard)
]
DECLARED = {
    metric.name: metric
    for metric in (*COMMON_METRICS, *RPC_CLIENT_METRICS, *BALANCER, *CACHE, *RAG)
}
# What of several replicas makes one figure. Counters and histograms are added up; of gauges those
# that each replica has for itself. All replicas show the same where they read it from a store, and
# of states the one that sees it worst counts.
OF_EACH_REPLICA = {"sum"}
THE_SAME_EVERYWHERE = {"max"}
GAUGES = {
    "balancer_backend_healthy": {"min"},
    "balancer_backend_inflight": OF_EACH_REPLICA,
    "balancer_backend_last_check_timestamp_seconds": {"min"},
    "balancer_backend_load_score": {"max"},
    "balancer_backend_model_vram_bytes": THE_SAME_EVERYWHERE,
    "balancer_queue_depth": OF_EACH_REPLICA,
    "balancer_retry_budget_ratio": {"min"},
    "cache_backend_up": {"min"},
    "cache_degraded": {"max"},
    "cache_entries": OF_EACH_REPLICA,
    "cache_false_hit_upper_bound": {"max"},
    "cache_feed_lag_seconds": {"max"},
    "cache_held_leases": OF_EACH_REPLICA,
    "cache_memory_bytes": {"sum", "max"},
    "cache_memory_limit_bytes": {"sum", "max"},
    "cache_redis_breaker_state": {"max"},
    "cache_semantic_entries": THE_SAME_EVERYWHERE,
    "cache_semantic_memory_bytes": {"max"},
    "cache_semantic_memory_limit_bytes": {"max"},
    "cache_semantic_partitions": THE_SAME_EVERYWHERE,
    "cache_waiting_callers": OF_EACH_REPLICA,
    "connection_pool_connections": {"sum", "max"},
    "connection_pool_max_connections": {"max"},
    "rag_active_queries": OF_EACH_REPLICA,
    "rag_active_tenants": {"max"},
    "rag_budgets": THE_SAME_EVERYWHERE,
    "rag_index_chunks": THE_SAME_EVERYWHERE,
    "rag_index_documents": THE_SAME_EVERYWHERE,
    "rag_invalidations_pending": THE_SAME_EVERYWHERE,
    "rag_resumable_answers": OF_EACH_REPLICA,
    "rag_resumable_bytes": OF_EACH_REPLICA,
    "rpc_server_active_calls": OF_EACH_REPLICA,
    "service_build_info": {"count"},
}
# What every process or scraper in the world shows.
COMMON_NAMES = re.compile(r"process_|python_|up$")
OF_THE_SERVICES = ("job", "=~", '"rag|cache|balancer"')
# None of them says why there is nothing: a service that is away must not look like an idle one.
WITHOUT_DATA = {
    "nothing measured", "no errors counted", "no service is scraped", "no such trace",
}  # fmt: skip
COARSE_RATIO = 2.5
each_panel = pytest.mark.parametrize(("dashboard", "panel"), PANELS)
each_query = pytest.mark.parametrize(
    "query", QUERIES, ids=lambda each: f"{each.dashboard_uid}-{each.panel_id}{each.ref_id}"
)


def parts(panel):
    """What a panel shows, why, and what to do, without Markdown."""
    return panel["description"].split("\n\n")


def expressions(panel):
    return [parse(target["expr"]) for target in panel["targets"] if "expr" in target]


def metric_of(name):
    """The declared metric that a series belongs to; None for foreign ones."""
    for ending in ("", "_bucket", "_sum", "_count"):
        stem = name.removesuffix(ending) if ending else name
        if stem in DECLARED and (not ending or DECLARED[stem].kind is MetricKind.HISTOGRAM):
            return DECLARED[stem]
    return None


def with_ancestors(expression, above=()):
    """Yields each selector with what stands above it, the nearest last."""
    if isinstance(expression, Selector):
        yield expression, above
    for each in children(expression):
        yield from with_ancestors(each, (*above, expression))


# What is away, is seen to be away ------------------------------------------------------------


@each_panel
def test_figures_of_a_moment_are_of_this_moment(dashboard, panel):
    """A range would show the last figure of what has gone, up to its whole length."""
    for target in panel["targets"]:
        if "expr" in target:
            over_time = panel["type"] in ("timeseries", "heatmap")
            assert target["instant"] is not over_time


@each_query
def test_no_query_makes_up_a_value(query):
    invented = {"vector", "absent"}
    functions = {each.function for each in walk(parse(query.expr)) if isinstance(each, Call)}
    assert functions & invented == set()


@each_panel
def test_an_empty_panel_does_not_say_that_all_is_well(dashboard, panel):
    assert panel["fieldConfig"]["defaults"]["noValue"] in WITHOUT_DATA


# What belongs together --------------------------------------------------------------------------


def test_every_gauge_has_its_way_to_become_one_figure():
    declared = {name for name, each in DECLARED.items() if each.kind is MetricKind.GAUGE}
    assert declared == set(GAUGES)


@each_query
def test_gauges_of_replicas_become_one_figure_in_the_way_that_is_right_for_them(query):
    for selector, above in with_ancestors(parse(query.expr)):
        if selector.metric not in GAUGES:
            continue
        aggregations = [each for each in above if isinstance(each, Aggregation)]
        assert aggregations, selector.metric
        nearest = aggregations[-1]
        kept = {"instance"} <= set(nearest.labels)
        assert kept or nearest.operator in GAUGES[selector.metric], selector.metric


@each_query
def test_how_full_something_is_does_not_become_a_mean_over_replicas(query):
    """Full and empty make half full; nobody would see the full one."""
    for each in walk(parse(query.expr)):
        if isinstance(each, Binary) and each.operator == "/":
            sides = [
                aggregation
                for side in (each.left, each.right)
                for aggregation in walk(side)
                if isinstance(aggregation, Aggregation) and aggregation.operator == "sum"
            ]
            gauges = [
                selector.metric
                for selector, _ in with_ancestors(each)
                if selector.metric in GAUGES or COMMON_NAMES.match(selector.metric)
            ]
            rates = [
                call for call in walk(each) if isinstance(call, Call) and call.function == "rate"
            ]
            if len(sides) == 2 and gauges and not rates:
                assert all("instance" in side.labels for side in sides)


def _modes(metric):
    label = metric.labels.get("mode") if metric is not None else None
    return frozenset(label.values) if label is not None else frozenset()


@each_query
def test_a_share_of_questions_counts_the_same_modes_above_and_below(query):
    """Ingestion and searches alone have modes of their own that no question has."""
    for each in walk(parse(query.expr)):
        if not (isinstance(each, Binary) and each.operator == "/"):
            continue
        below = [_modes(metric_of(selector.metric)) for selector, _ in with_ancestors(each.right)]
        allowed = frozenset().union(*below)
        for selector, _ in with_ancestors(each.left):
            surplus = _modes(metric_of(selector.metric)) - allowed
            if allowed and surplus:
                grouped = "mode" in (output_labels(each.right) or ())
                left_out = any(
                    label == "mode"
                    and operator == "!~"
                    and set(value.strip('"').split("|")) >= surplus
                    for label, operator, value in selector.matchers
                )
                assert grouped or left_out, (query.title, selector.metric, sorted(surplus))


@each_query
def test_what_any_process_shows_is_asked_of_the_services_only(query):
    for each in walk(parse(query.expr)):
        if isinstance(each, Selector) and COMMON_NAMES.match(each.metric):
            assert OF_THE_SERVICES in each.matchers


def test_marks_of_starts_are_those_of_the_services_only():
    for dashboard in DASHBOARDS:
        for annotation in dashboard["annotations"]["list"]:
            for each in walk(parse(annotation["expr"])):
                if isinstance(each, Selector) and COMMON_NAMES.match(each.metric):
                    assert OF_THE_SERVICES in each.matchers


@each_panel
def test_the_busiest_are_the_same_over_the_whole_picture(dashboard, panel):
    """`topk` chooses anew at each step, so that a picture has many more lines than it says."""
    for target in panel["targets"]:
        if target.get("range") and re.search(r"\b(top|bottom)k\b", target["expr"]):
            assert "@ end()" in target["expr"]


@each_panel
def test_cells_of_a_heatmap_are_rates(dashboard, panel):
    """Windows of increases are wider than steps, so that each event would count several times."""
    if panel["type"] == "heatmap":
        (expression,) = expressions(panel)
        functions = {each.function for each in walk(expression) if isinstance(each, Call)}
        assert functions == {"rate"}
        assert "each second" in parts(panel)[0]


# Quantiles are no better than their buckets ----------------------------------------------------


def quantiles(panel):
    """The declared histograms of which a panel shows quantiles."""
    found = []
    for expression in expressions(panel):
        for each in walk(expression):
            if isinstance(each, Call) and each.function == "histogram_quantile":
                found += [
                    metric_of(selector.metric)
                    for selector, _ in with_ancestors(each)
                    if metric_of(selector.metric) is not None
                ]
    return found


def is_coarse(metric):
    edges = [edge for edge in metric.buckets if edge > 0]
    return any(high / low > COARSE_RATIO for low, high in pairwise(edges))


@each_panel
def test_limits_of_a_quantile_are_edges_so_that_it_can_reach_them(dashboard, panel):
    if not quantiles(panel) or any("/" in target["expr"] for target in panel["targets"]):
        return
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    for metric in quantiles(panel):
        for step in steps:
            assert step["value"] is None or step["value"] in metric.buckets[:-1], metric.name


@each_panel
def test_a_quantile_of_wide_buckets_calls_itself_an_estimate(dashboard, panel):
    coarse = [metric.name for metric in quantiles(panel) if is_coarse(metric)]
    if coarse:
        assert "estimate" in parts(panel)[0], coarse


@each_panel
def test_ends_of_what_can_be_told_are_those_of_the_buckets(dashboard, panel):
    for milliseconds in re.findall(r"[Ll]ess than (\d+) ms shows", panel["description"]):
        assert {int(milliseconds) / 1000} == {metric.buckets[0] for metric in quantiles(panel)}
    for seconds in re.findall(r"(\d+) s stands for more", panel["description"]):
        assert float(seconds) in {metric.buckets[-1] for metric in quantiles(panel)}


# What a description names, is there -------------------------------------------------------------


@cache
def label_values():
    values = {value for metric in DECLARED.values() for label in metric.labels.values()
              for value in label.values}  # fmt: skip
    stages = set()
    for path in (ROOT / "services/rag").rglob("*.py"):
        text = path.read_text()
        stages |= set(re.findall(r"(?:\.stage|\.begin)\(\"(\w+)\"\)", text))
        stages |= set(re.findall(r"^_STAGE = \"(\w+)\"", text, re.MULTILINE))
        stages |= set(re.findall(r"_run_arm\(\w+, \"(\w+)\"", text))
    return values | stages | set(DECLARED)


@each_panel
def test_values_of_labels_that_are_explained_exist(dashboard, panel):
    """`busy: it has other users` stands for a line of the picture."""
    for named in re.findall(
        r"\b([a-z]+(?:_[a-z]+)*)(?: or ([a-z]+(?:_[a-z]+)*))?:", parts(panel)[2]
    ):
        for value in filter(None, named):
            if "_" in value:
                assert value in label_values(), value
    for value in re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", panel["description"]):
        assert value in label_values(), value


@each_panel
def test_panels_that_a_description_names_exist(dashboard, panel):
    titles = {each["title"]: [p["title"].lower() for p in panels(each)] for each in DASHBOARDS}
    for other, there in titles.items():
        for before in re.findall(rf"((?:[\w'-]+ ){{1,8}})on {other}\b", panel["description"]):
            words = before.lower().split()
            # Of "Hop latency and Pool wait" each is one.
            phrases = [" ".join(words[start:]) for start in range(len(words))]
            assert any(title.startswith(phrase) for phrase in phrases for title in there), before


@each_panel
def test_commands_that_a_description_names_exist(dashboard, panel):
    for words in re.findall(r"`pannier ([^`]+)`", panel["description"]):
        command = typer.main.get_command(application)
        for word in words.split():
            assert word in command.commands, words
            command = command.commands[word]
            if not hasattr(command, "commands"):
                break


@each_panel
def test_documents_that_a_description_names_exist(dashboard, panel):
    for path in re.findall(r"\b(docs/[\w./-]+\.md)\b", panel["description"]):
        assert (ROOT / path).is_file()


# TraceQL ----------------------------------------------------------------------------------------

TRACEQL = [
    query for dashboard in DASHBOARDS for query in panel_queries(dashboard)
    if query.datasource_type == "tempo" and query.expr != "serviceMap"
]  # fmt: skip
# https://grafana.com/docs/tempo/latest/traceql/ and .../metrics-queries/functions/
_FIELD = r"(?:(?:span|resource)(?:\.\w+)+|duration|status|name|kind)"
_VALUE = r'(?:"[^"]*"|\d+(?:\.\d+)?(?:ms|s)?|true|false|nil|error|ok|server|client)'
_CONDITION = rf"{_FIELD} (?:=|!=|=~|>|<|>=|<=) {_VALUE}"
_FUNCTION = (
    rf"(?:rate\(\)|avg_over_time\({_FIELD}\)|quantile_over_time\({_FIELD}, 0\.\d+\))"
    rf"(?: by \({_FIELD}\))?"
)
_QUERY = re.compile(
    rf"\{{ {_CONDITION}(?: && {_CONDITION})* \}}"
    rf"(?: \| (?:select\({_FIELD}(?:, {_FIELD})*\)|{_FUNCTION}))?"
)


@pytest.mark.parametrize(
    "query", TRACEQL, ids=lambda each: f"{each.dashboard_uid}-{each.panel_id}{each.ref_id}"
)
def test_traceql_is_of_the_parts_that_tempo_has(query):
    assert _QUERY.fullmatch(query.expr), query.expr


def test_searches_for_questions_find_each_once():
    """Server spans of rag are those of ingestion, too; one span of a question has its outcome."""
    for query in TRACEQL:
        if "app.rag" in query.expr and "by (" not in query.expr:
            assert "span.app.rag.outcome" in query.expr
