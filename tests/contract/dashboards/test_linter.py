"""The rules of Grafana's dashboard-linter, which cannot be installed here, and PromQL's own."""

import json
import re
from pathlib import Path

import pytest

from services.balancer.metrics import CATALOGUE as BALANCER
from services.cache.metrics import CATALOGUE as CACHE
from services.common.metrics import COMMON_METRICS, RPC_CLIENT_METRICS, MetricKind
from services.rag.metrics import CATALOGUE as RAG
from tests.kit.prometheus import run_tool
from tools.monitoring.dashboards.promql import parse
from tools.monitoring.dashboards.queries import panel_queries, panels, resolve
from tools.monitoring.dashboards.syntax import Call, Range, Selector, children, walk

ROOT = Path(__file__).resolve().parents[3]
DASHBOARDS = [json.loads(path.read_text()) for path in sorted((ROOT / "dashboards").glob("*.json"))]
OF_SERVICES = [each for each in DASHBOARDS if each["uid"] != "traces"]
QUERIES = [each for dashboard in DASHBOARDS for each in panel_queries(dashboard)]
PROMQL = [each for each in QUERIES if each.datasource_type == "prometheus"]
COUNTER_FUNCTIONS = {"rate", "irate", "increase"}
each_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda each: each["uid"])
each_query = pytest.mark.parametrize(
    "query", PROMQL, ids=lambda each: f"{each.dashboard_uid}-{each.panel_id}{each.ref_id}"
)


def variables(dashboard):
    return {each["name"]: each for each in dashboard["templating"]["list"]}


@each_dashboard
def test_template_datasource_rule(dashboard):
    sources = {
        name: each["query"]
        for name, each in variables(dashboard).items()
        if each["type"] == "datasource"
    }
    wanted = {"datasource": "prometheus"}
    if dashboard["uid"] == "traces":
        wanted["tempo"] = "tempo"
    assert sources == wanted


@pytest.mark.parametrize("dashboard", OF_SERVICES, ids=lambda each: each["uid"])
@pytest.mark.parametrize("name", ["job", "instance"])
def test_template_job_and_instance_rules(dashboard, name):
    variable = variables(dashboard)[name]
    assert variable["type"] == "query"
    assert variable["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert variable["multi"] is True
    assert variable["includeAll"] is True
    assert variable["allValue"] == ".+"


@each_dashboard
def test_template_label_promql_rule(dashboard):
    found = 0
    for variable in variables(dashboard).values():
        if variable["type"] == "query":
            call = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert isinstance(parse(call[1]), Selector)
            assert call[2] == variable["name"]
            assert variable["definition"] == variable["query"]["query"]
            found += 1
    assert found


@each_dashboard
def test_template_on_time_change_reload_rule(dashboard):
    for variable in variables(dashboard).values():
        if variable["type"] == "query":
            assert variable["refresh"] == 2


@each_dashboard
def test_panel_and_target_datasource_rules(dashboard):
    allowed = [
        {"type": "prometheus", "uid": "${datasource}"},
        {"type": "tempo", "uid": "${tempo}"},
    ]
    for panel in panels(dashboard):
        assert panel["datasource"] in allowed
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"]
        if dashboard["uid"] != "traces":
            assert panel["datasource"] == allowed[0]


@each_dashboard
def test_panel_no_targets_rule(dashboard):
    for panel in panels(dashboard):
        assert panel["targets"]


@each_query
def test_target_promql_rule(query):
    parse(query.expr)
    parse(resolve(query.expr))


@each_query
def test_target_job_and_instance_rules(query):
    selectors = [each for each in walk(parse(query.expr)) if isinstance(each, Selector)]
    assert selectors
    for selector in selectors:
        if selector.metric.startswith("traces_service_graph"):
            wanted = {("client", "=~", '"$service"')}
        elif selector.metric.startswith("traces_spanmetrics"):
            wanted = {("service", "=~", '"$service"')}
        else:
            wanted = {("job", "=~", '"$job"'), ("instance", "=~", '"$instance"')}
        assert wanted <= set(selector.matchers)


@each_query
def test_target_counter_rule(query):
    """A counter, or a part of a histogram, means something only in its rate or increase."""

    def check(expression, functions):
        if isinstance(expression, Selector) and is_counter(expression.metric):
            assert functions & COUNTER_FUNCTIONS, expression.metric
        own = {expression.function} if isinstance(expression, Call) else set()
        for each in children(expression):
            check(each, functions | own)

    def is_counter(name):
        return name.endswith(("_total", "_bucket", "_sum", "_count"))

    check(parse(query.expr), set())


@each_query
def test_only_counters_have_rates(query):
    gauges = {
        metric.name
        for metric in (*BALANCER, *CACHE, *RAG, *COMMON_METRICS, *RPC_CLIENT_METRICS)
        if metric.kind is MetricKind.GAUGE
    }
    for each in walk(parse(query.expr)):
        if isinstance(each, Call) and each.function in COUNTER_FUNCTIONS:
            (argument,) = each.arguments
            assert isinstance(argument, Range)
            assert argument.selector.metric not in gauges


@each_query
def test_quantiles_are_of_buckets_summed_by_le(query):
    for each in walk(parse(query.expr)):
        if isinstance(each, Call) and each.function == "histogram_quantile":
            aggregation = each.arguments[1]
            assert aggregation.operator == "sum"
            assert "le" in aggregation.labels


def test_prometheus_itself_can_read_every_query(tmp_path):
    rules = [
        {"record": f"panel:query{index}", "expr": resolve(query.expr)}
        for index, query in enumerate(PROMQL)
    ]
    path = tmp_path / "rules.yaml"
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    done = run_tool("promtool", "check", "rules", path)
    assert done.returncode == 0, done.stderr
    assert f"{len(PROMQL)} rules found" in done.stdout


@pytest.mark.parametrize(
    "query",
    [each for each in QUERIES if each.datasource_type == "tempo" and each.expr != "serviceMap"],
    ids=lambda each: f"{each.dashboard_uid}-{each.panel_id}{each.ref_id}",
)
def test_traceql_has_its_brackets_closed_and_its_variables_known(query):
    text = re.sub(r'"[^"]*"', '""', resolve(query.expr))
    assert text.startswith("{ ")
    assert text.count("{") == text.count("}") == 1
    assert text.count("(") == text.count(")")
    assert "$" not in text


def test_traceql_names_attributes_that_the_services_set():
    sources = "\n".join(
        path.read_text() for path in (ROOT / "services").rglob("*.py") if "_pb2" not in path.name
    )
    named = {
        attribute
        for query in QUERIES
        if query.datasource_type == "tempo"
        for attribute in re.findall(r"span\.(app\.[\w.]+)", query.expr)
    }
    assert named
    assert {each for each in named if f'"{each}"' not in sources} == set()


@each_dashboard
def test_annotations_ask_prometheus_what_it_can_answer(dashboard):
    for annotation in dashboard["annotations"]["list"]:
        assert annotation["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        parse(annotation["expr"])
