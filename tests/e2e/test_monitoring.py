"""Everything that operators look at, held against what the running services show."""

import asyncio
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from services.balancer.metrics import CATALOGUE as BALANCER
from services.cache.metrics import CATALOGUE as CACHE
from services.common.metrics import COMMON_METRICS
from services.rag.metrics import CATALOGUE as RAG
from tests.kit.prometheus import find_program
from tests.monitoring.observation import observe
from tools.monitoring.dashboards import ALL
from tools.monitoring.dashboards.queries import panel_queries, used_metrics

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).resolve().parents[2]
CATALOGUES = {"rag": RAG, "cache": CACHE, "balancer": BALANCER}
QUERIES = [
    query
    for dashboard in ALL
    for query in panel_queries(dashboard.json())
    if query.datasource_type == "prometheus"
]
# Tempo's metrics generator makes them, the collector's own and those of Prometheus come with them.
FOREIGN = ("traces_", "otelcol_", "up", "scrape_", "ALERTS", "prometheus_")
SERIES_BUDGET = 5000


def name_of(query):
    return f"{query.dashboard_uid}-{query.panel_id}-{query.ref_id}"


def is_foreign(metric):
    return metric.startswith(FOREIGN)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PANNIER_", "COV"))
    }
    folder = tmp_path_factory.mktemp("watched")
    return asyncio.run(observe(folder, {**environment, "GRPC_VERBOSITY": "ERROR"}))


@pytest.fixture(scope="module")
def shown(seen):
    """Label names by sample name, of all services."""
    found: dict[str, set[str]] = {}
    for page in seen.pages.values():
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.mark.parametrize("query", QUERIES, ids=name_of)
def test_every_panel_has_data(seen, query):
    if all(map(is_foreign, used_metrics(query.expr))) and "up" not in used_metrics(query.expr):
        pytest.skip("made of spans by Tempo, which is not here")
    assert seen.answers[query], f"{query.title}: {query.expr}"
    assert seen.values(query), f"{query.title} is not a number: {query.expr}"


@pytest.mark.parametrize("query", QUERIES, ids=name_of)
def test_no_panel_asks_for_what_is_not_there(shown, query):
    for metric, labels in used_metrics(query.expr).items():
        if not is_foreign(metric):
            assert metric in shown, query.title
            assert labels - {"job", "instance", "le"} <= shown[metric], query.title


def test_no_rule_asks_for_what_is_not_there(seen, shown):
    recorded = {each["name"] for each in seen.rules if each["type"] == "recording"}
    for path in (ROOT / "deploy/prometheus/rules").glob("*.yaml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                for metric, labels in used_metrics(rule["expr"]).items():
                    if is_foreign(metric) or metric in recorded:
                        continue
                    assert metric in shown, rule
                    assert labels - {"job", "instance", "le"} <= shown[metric], rule


def test_every_rule_can_be_evaluated(seen):
    assert seen.rules
    assert {
        rule["name"]: rule.get("lastError") for rule in seen.rules if rule["health"] != "ok"
    } == {}


@pytest.mark.parametrize("service", CATALOGUES)
def test_every_metric_is_shown(seen, service):
    families = {each.name for each in text_string_to_metric_families(seen.pages[service])}
    declared = {
        metric.name.removesuffix("_total") for metric in (*COMMON_METRICS, *CATALOGUES[service])
    }
    assert declared - families == set()


@pytest.mark.parametrize("service", CATALOGUES)
def test_no_label_has_run_out_of_room(seen, service):
    for family in text_string_to_metric_families(seen.pages[service]):
        if family.name == "telemetry_label_overflow":
            assert {each.labels["label"]: each.value for each in family.samples if each.value} == {}


@pytest.mark.parametrize("service", CATALOGUES)
def test_a_service_stays_within_its_budget_of_series(seen, service):
    families = text_string_to_metric_families(seen.pages[service])
    assert sum(len(family.samples) for family in families) <= SERIES_BUDGET


@pytest.mark.parametrize("service", CATALOGUES)
def test_promtool_finds_nothing_wrong_with_a_page(seen, service):
    done = subprocess.run(
        [find_program("promtool"), "check", "metrics"],
        input=seen.plain_pages[service],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_durations_point_at_traces(seen):
    assert {len(each["labels"]["trace_id"]) for each in seen.exemplars} == {32}
