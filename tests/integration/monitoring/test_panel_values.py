"""Known series in a real Prometheus: what panels then show, figure by figure.

There are two replicas of each service, with unequal shares of the traffic, so that a mean of means
or a state counted twice shows. Twenty minutes later rag and one cache are gone, and after forty all
is, Prometheus' own knowledge of the services included.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import NamedTuple

import pytest

from tests.kit.prometheus import run_tool, running_prometheus
from tools.monitoring.dashboards import ALL
from tools.monitoring.dashboards.queries import PanelQuery, panel_queries, panels, resolve, windows

pytestmark = pytest.mark.timeout(180)

STEP = 15
NOW = 1_700_000_400
BEGIN = NOW - 75 * 60
"""An hour and a quarter before: ranges of an hour are full."""
LATER = NOW + 20 * 60
LAST = NOW + 40 * 60
DAY = 86_400
HOUR = 3_600
CONFIG = "global:\n  scrape_interval: 15s\n"
DASHBOARDS = [json.loads(json.dumps(each.json())) for each in ALL]
PROMQL = [
    query
    for dashboard in DASHBOARDS
    for query in panel_queries(dashboard)
    if query.datasource_type == "prometheus"
]


class Instance(NamedTuple):
    """A process that Prometheus reads.

    Attributes:
        job: which service it is.
        number: counts the replicas.
        ends: when it is last seen.
    """

    job: str
    number: int
    ends: int

    def labels(self) -> str:
        return f'job="{self.job}",instance="{self.job}-{self.number}"'


RAG = (Instance("rag", 1, NOW + 60), Instance("rag", 2, NOW + 60))
CACHE = (Instance("cache", 1, LATER), Instance("cache", 2, NOW + 60))
BALANCER = (Instance("balancer", 1, LATER), Instance("balancer", 2, LATER))
# Some other process of the same machine.
STRANGER = Instance("node", 1, LAST)

# Series without job and instance to what each replica shows: growth a second of counters.
Counters = Mapping[str, tuple[float, float]]
Gauges = Mapping[str, tuple[float, float]]


def _histogram(name: str, labels: str, edges: Mapping[str, float], total: float) -> Counters:
    """A histogram of which the first replica has three quarters."""
    beginning = f"{labels}," if labels else ""
    buckets = {f'{name}_bucket{{{beginning}le="{edge}"}}': each for edge, each in edges.items()}
    whole = {f"{name}_sum{{{labels}}}": total, f"{name}_count{{{labels}}}": edges["+Inf"]}
    return {series: (0.75 * each, 0.25 * each) for series, each in (buckets | whole).items()}


_TENANTS: Counters = {
    f'rag_tenant_requests_total{{tenant="t{number:02}",outcome="{outcome}"}}': (
        share * number / 10,
        0.0,
    )
    for number in range(1, 13)
    for outcome, share in (("success", 0.95), ("error", 0.05))
}
RAG_COUNTERS: Counters = {
    'rag_requests_total{mode="rag",outcome="success"}': (2.2, 0.9),
    'rag_requests_total{mode="agent",outcome="success"}': (0.5, 0),
    'rag_requests_total{mode="rag",outcome="error"}': (0.2, 0),
    'rag_requests_total{mode="rag",outcome="cancelled"}': (0.1, 0.1),
    **_histogram(
        "rag_request_duration_seconds",
        'mode="rag",cache="hit"',
        {"0.1": 1.8, "1.0": 1.8, "5.0": 1.8, "10.0": 1.8, "30.0": 1.8, "+Inf": 1.8},
        0.09,
    ),
    **_histogram(
        "rag_request_duration_seconds",
        'mode="rag",cache="miss"',
        {"0.1": 0, "1.0": 0.9, "5.0": 1.62, "10.0": 1.8, "30.0": 1.8, "+Inf": 1.8},
        3.51,
    ),
    'rag_quality_score_sum{mode="rag"}': (1.7, 1.0),
    'rag_quality_score_count{mode="rag"}': (2.0, 1.0),
    'rag_degraded_responses_total{mode="rag"}': (0.4, 0),
    **_TENANTS,
    'rag_cost_total{currency="EUR",mode="rag",type="llm"}': (36 / DAY, 12 / DAY),
    'rag_cost_total{currency="EUR",mode="other",type="retrieval"}': (2 / DAY, 0),
    'rag_cost_saved_total{currency="EUR",mode="rag",layer="inference"}': (16 / DAY, 0),
    'rag_cost_saved_total{currency="EUR",mode="rag",layer="semantic"}': (0, 0),
    'rag_llm_calls_total{mode="rag",model="m",cached="false"}': (2, 1),
    'rag_llm_calls_total{mode="rag",model="m",cached="true"}': (1, 0),
    'rag_llm_tokens_total{mode="rag",model="m",direction="input"}': (300, 100),
    'rag_llm_tokens_total{mode="other",model="m",direction="input"}': (1000, 0),
    'rag_tool_executions_total{tool="calculator",outcome="success"}': (0.9, 0.6),
    'rag_tool_executions_total{tool="web_search",outcome="success"}': (0.25, 0),
    'rag_tool_executions_total{tool="web_search",outcome="failed"}': (0.15, 0),
    'rag_tool_executions_total{tool="web_search",outcome="timed_out"}': (0.1, 0),
    'rag_retrievals_total{mode="rag",outcome="success"}': (0.6, 0.2),
    'rag_retrievals_total{mode="rag",outcome="empty"}': (0.15, 0),
    'rag_retrievals_total{mode="rag",outcome="error"}': (0, 0.05),
    'rag_web_fallbacks_total{reason="nothing_found"}': (0.1, 0),
    'rag_web_fallbacks_total{reason="requested"}': (0.1, 0.1),
    'rag_answer_reuse_total{outcome="exact"}': (1, 0),
    'rag_answer_reuse_total{outcome="similar"}': (0, 0.5),
    'rag_answer_reuse_total{outcome="confirmed"}': (0.5, 0),
    'rag_answer_reuse_total{outcome="miss"}': (2, 0),
    'rag_answer_reuse_total{outcome="bypassed"}': (4, 0),
    'rag_answer_reuse_total{outcome="unavailable"}': (1, 0),
    'rag_verified_sentences_total{status="supported"}': (6, 0),
    'rag_verified_sentences_total{status="unsupported"}': (1, 0),
    'rag_verified_sentences_total{status="number_mismatch"}': (0, 1),
    'rag_verified_sentences_total{status="no_claim"}': (2, 0),
    'connection_pool_wait_seconds_bucket{pool="postgres",le="0.005"}': (9, 9),
    'connection_pool_wait_seconds_bucket{pool="postgres",le="+Inf"}': (10, 10),
    'connection_pool_wait_seconds_sum{pool="postgres"}': (0.04, 0),
    'connection_pool_wait_seconds_count{pool="postgres"}': (10, 10),
}
RAG_GAUGES: Gauges = {
    'rag_active_queries{mode="rag"}': (3, 1),
    "rag_active_tenants": (5, 7),
    'rag_budgets{state="within"}': (5, 5),
    'rag_budgets{state="warned"}': (1, 1),
    'rag_budgets{state="exceeded"}': (0, 0),
    "rag_index_chunks": (1000, 1000),
    "rag_index_documents": (10, 10),
    "rag_invalidations_pending": (3, 3),
    'connection_pool_connections{pool="postgres",state="in_use"}': (9, 1),
    'connection_pool_max_connections{pool="postgres"}': (10, 10),
    "process_start_time_seconds": (NOW - 7200, NOW - 600),
    "process_open_fds": (90, 10),
    "process_max_fds": (100, 100),
}
CACHE_COUNTERS: Counters = {
    'cache_lookups_total{layer="embedding",mode="rag",result="hit"}': (60, 0),
    'cache_lookups_total{layer="embedding",mode="rag",result="miss"}': (2, 0),
    'cache_lookups_total{layer="inference",mode="deep",result="hit"}': (0, 30),
    'cache_lookups_total{layer="inference",mode="deep",result="miss"}': (0, 8),
    'cache_lookups_total{layer="inference",mode="deep",result="error"}': (0, 5),
    'cache_writes_total{layer="inference",outcome="stored"}': (5, 3),
    'cache_writes_total{layer="inference",outcome="dropped"}': (0, 2),
    'cache_evictions_total{layer="embedding",reason="capacity"}': (4, 0),
    'cache_evictions_total{layer="inference",reason="capacity"}': (0, 8),
    'cache_evictions_total{layer="inference",reason="expired"}': (50, 50),
    "cache_invalidations_total": (1, 0),
}
CACHE_GAUGES: Gauges = {
    'cache_entries{layer="inference"}': (100, 300),
    'cache_memory_bytes{layer="inference"}': (50, 99),
    'cache_memory_limit_bytes{layer="inference"}': (100, 100),
    "cache_semantic_entries": (40, 38),
    "cache_semantic_partitions": (2, 2),
    "cache_semantic_memory_bytes": (4000, 3800),
    "cache_semantic_memory_limit_bytes": (8000, 8000),
    "cache_false_hit_upper_bound": (0.004, 0.02),
    'cache_backend_up{backend="redis"}': (1, 0),
    "cache_degraded": (0, 1),
    'cache_redis_breaker_state{phase="normal"}': (1, 0),
    'cache_redis_breaker_state{phase="open"}': (0, 1),
}
BALANCER_COUNTERS: Counters = {
    'balancer_requests_total{backend="o1",outcome="success"}': (2, 1),
    'balancer_requests_total{backend="o1",outcome="error"}': (0, 0),
    'balancer_requests_total{backend="o2",outcome="success"}': (1, 0),
    'balancer_requests_total{backend="o2",outcome="error"}': (0.5, 0),
    'balancer_requests_total{backend="o2",outcome="timeout"}': (0, 0.5),
    'balancer_requests_total{backend="o3",outcome="success"}': (0, 0),
    "balancer_model_load_seconds_sum": (0.3, 0),
    "balancer_model_load_seconds_count": (0.1, 0),
    'balancer_backend_loads_total{backend="o1"}': (0.1, 0),
    'balancer_queue_wait_seconds_sum{priority="interactive"}': (3, 1),
    'balancer_queue_wait_seconds_count{priority="interactive"}': (4, 4),
    'balancer_request_duration_seconds_sum{backend="o1"}': (6, 2),
    'balancer_request_duration_seconds_count{backend="o1"}': (3, 1),
}
BALANCER_GAUGES: Gauges = {
    'balancer_backend_healthy{backend="o1"}': (1, 1),
    'balancer_backend_healthy{backend="o2"}': (1, 0),
    'balancer_backend_healthy{backend="o3"}': (0, 0),
    'balancer_backend_load_score{backend="o1"}': (1, 2),
    'balancer_backend_inflight{backend="o1"}': (2, 3),
    'balancer_backend_last_check_timestamp_seconds{backend="o1"}': (NOW - 5, NOW - 100),
    'balancer_queue_depth{priority="interactive"}': (2, 1),
    "balancer_retry_budget_ratio": (0.9, 0.5),
}


class Shown(NamedTuple):
    """What a panel is to show: names of its series to their values."""

    dashboard: str
    panel: int
    values: Mapping[str, float]


# Each figure follows from those above by hand.
AT_NOW = (
    Shown("performance-overview", 1, {"questions": 4}),
    Shown("performance-overview", 2, {"mean": 1}),
    Shown("performance-overview", 3, {"all": 5, "rag": 5}),
    Shown("performance-overview", 4, {"all": 9, "cache hit": 0.099, "cache miss": 9.5}),
    Shown("performance-overview", 5, {"failed": 0.05}),
    Shown("performance-overview", 6, {"hits": 0.9}),
    Shown("performance-overview", 7, {"rag": 3.5 * HOUR, "agent": 0.5 * HOUR}),
    Shown("performance-overview", 9, {"all": 0.1, "rag": 0.4 / 3.5}),
    Shown("performance-overview", 10, {"under way": 4}),
    Shown("performance-overview", 11, {"answered": 3.6 / 3.8}),
    Shown("performance-overview", 16, {"slow": 0.05}),
    Shown("cache-performance", 1, {"embedding": 60 / 62, "inference": 30 / 38, "all": 0.9}),
    Shown(
        "cache-performance",
        2,
        {"hit": 90, "miss": 10, "error": 5, "stored": 8, "gone": 112, "invalidation": 1},
    ),
    Shown("cache-performance", 3, {"inference": 400, "inference, fullest": 0.99}),
    Shown("cache-performance", 13, {"inference": 0.99}),
    Shown(
        "cache-performance",
        7,
        {
            "embedding, capacity": 4,
            "inference, capacity": 8,
            "inference, expired": 100,
            "all, capacity": 12,
        },
    ),
    Shown("cache-performance", 11, {"upper bound": 0.02}),
    Shown("cache-performance", 15, {"pending": 3}),
    # Questions that could not be looked for say nothing of how often that helps.
    Shown(
        "cache-performance",
        16,
        {
            "exact": 1,
            "similar": 0.5,
            "confirmed": 0.5,
            "miss": 2,
            "bypassed": 4,
            "unavailable": 1,
            "share given again": 0.5,
        },
    ),
    Shown(
        "cache-performance",
        20,
        {"questions": 40, "partitions": 2, "memory": 4000, "memory, at most": 8000},
    ),
    Shown("cache-performance", 25, {"normal": 1, "open": 1}),
    Shown("cost-optimization", 1, {"EUR": 50}),
    Shown("cost-optimization", 2, {"llm, EUR": 2, "retrieval, EUR": 2 / 24}),
    Shown(
        "cost-optimization", 4, {"all, EUR": 16 / 24, "inference, EUR": 16 / 24, "semantic, EUR": 0}
    ),
    Shown("cost-optimization", 11, {"EUR": 16 / 66}),
    Shown("cost-optimization", 13, {"EUR": 48 / DAY / 4}),
    Shown("cost-optimization", 14, {"within": 5, "warned": 1, "exceeded": 0}),
    Shown("cost-optimization", 3, {"asked": 3, "cached": 1}),
    Shown("cost-optimization", 20, {"input": 100}),
    Shown("system-health", 2, {"rag, postgres": 0.9}),
    Shown("system-health", 7, {"all tools": 1 - 0.25 / 2, "web_search": 0.5}),
    Shown("system-health", 8, {"succeeded": 0.95}),
    Shown("system-health", 10, {"rag": 600}),
    Shown("system-health", 16, {"rag, rag-1": 0.9, "rag, rag-2": 0.1}),
    Shown("system-health", 19, {"down": 0}),
    Shown("fleet-performance", 1, {"P50": 0.1}),
    Shown("fleet-performance", 2, {"P95": 5}),
    Shown("fleet-performance", 3, {"P99": 9}),
    Shown("fleet-performance", 5, {"hits": 0.9}),
    Shown("fleet-performance", 16, {"waiting": 0.5, "working": 2}),
    Shown("fleet-health", 1, {"in use": 1, "of": 3, "out": 2}),
    Shown("fleet-health", 3, {"o1": 3 * HOUR, "o2": 2 * HOUR, "o3": 0}),
    Shown("fleet-health", 5, {"o1": 0, "o2": 0.5}),
    Shown("fleet-health", 11, {"Redis": 0, "shared cache": 0}),
    Shown("fleet-health", 12, {"max over mean": 3 / (5 / 3)}),
    Shown("fleet-health", 15, {"left": 0.5}),
    Shown("business", 2, {"last hour": 4 * HOUR}),
    Shown("business", 3, {"tenants": 7}),
    Shown("business", 4, {"found": 0.8}),
    Shown("business", 5, {"quality": 0.9}),
    Shown("business", 6, {"nothing_found": 0.1 / 4, "requested": 0.2 / 4}),
    Shown("business", 8, {"hit": 0.05, "miss": 1}),
    Shown("business", 10, {f"t{number:02}": number / 10 for number in range(3, 13)}),
    Shown("business", 14, {"without support": 0.25}),
    Shown("deep-dive", 3, {"o1": 0.1, "mean of a load": 3}),
    Shown("deep-dive", 4, {"o1": 5}),
    Shown("deep-dive", 13, {"rag, postgres": 0.002, "rag, postgres, waited": 0.1}),
)
# Rag and one cache have been gone for nineteen minutes; the rest goes on.
AT_LATER = (
    *(Shown("performance-overview", number, {}) for number in (1, 2, 3, 4, 5, 9, 10, 11, 16)),
    Shown("performance-overview", 6, {"hits": 60 / 62}),
    Shown("system-health", 19, {"down": 3}),
    Shown("system-health", 10, {}),
    Shown("system-health", 8, {}),
    Shown("cost-optimization", 14, {}),
    Shown("fleet-health", 11, {"Redis": 1, "shared cache": 1}),
    Shown("fleet-health", 1, {"in use": 1, "of": 3, "out": 2}),
    Shown("cache-performance", 25, {"normal": 1}),
    Shown("business", 3, {}),
    Shown("business", 5, {}),
)


def _lines(series: str, instance: Instance, values: list[float]) -> list[str]:
    name, _, labels = series.rstrip("}").partition("{")
    whole = f"{name}{{{instance.labels()}{',' if labels else ''}{labels}}}"
    return [f"{whole} {value!r} {BEGIN + index * STEP}" for index, value in enumerate(values)]


def _written() -> str:
    """All samples, in the format that promtool reads, each metric in one place."""
    lines: list[str] = []

    def add(series: str, instance: Instance, level: float, growth: float) -> None:
        steps = (instance.ends - BEGIN) // STEP + 1
        lines.extend(
            _lines(series, instance, [level + growth * STEP * index for index in range(steps)])
        )

    for instances, counters, gauges in (
        (RAG, RAG_COUNTERS, RAG_GAUGES),
        (CACHE, CACHE_COUNTERS, CACHE_GAUGES),
        (BALANCER, BALANCER_COUNTERS, BALANCER_GAUGES),
    ):
        for series, growths in counters.items():
            for instance, growth in zip(instances, growths, strict=True):
                add(series, instance, 1.0, growth)
        for series, levels in gauges.items():
            for instance, level in zip(instances, levels, strict=True):
                add(series, instance, float(level), 0.0)
        for instance in instances:
            up = [float(at <= instance.ends) for at in range(BEGIN, LATER + 1, STEP)]
            lines.extend(_lines("up", instance, up))
    add("process_start_time_seconds", STRANGER, NOW - 1.0, 0.0)
    add("up", STRANGER, 0.0, 0.0)
    return "\n".join([*sorted(lines, key=lambda line: line.partition("{")[0]), "# EOF\n"])


Answers = Mapping[tuple[int, PanelQuery], Mapping[str, float]]


async def _ask_all(folder) -> Answers:
    answers = {}
    async with running_prometheus(
        CONFIG, folder, options=("--storage.tsdb.retention.time=100y",)
    ) as prometheus:
        for at in (NOW, LATER, LAST):
            for query in PROMQL:
                expr = resolve(query.expr, rate_interval="5m", picked_range="1h")
                samples = await prometheus.query(expr, at=at)
                answers[at, query] = {
                    json.dumps(each["metric"], sort_keys=True): float(each["value"][1])
                    for each in samples
                }
    return answers


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("values")
    written = folder / "samples.txt"
    written.write_text(_written())
    home = folder / "prometheus"
    (home / "data").mkdir(parents=True)
    done = run_tool("promtool", "tsdb", "create-blocks-from", "openmetrics", written, home / "data")
    assert done.returncode == 0, done.stdout + done.stderr
    return asyncio.run(_ask_all(home))


def _panel(dashboard_uid, number):
    dashboard = next(each for each in DASHBOARDS if each["uid"] == dashboard_uid)
    return next(each for each in panels(dashboard) if each["id"] == number)


def _shown(answers, at, dashboard_uid, number):
    """What a panel shows: names of its series to their values."""
    legends = {
        target["refId"]: target["legendFormat"]
        for target in _panel(dashboard_uid, number)["targets"]
    }
    found = {}
    for (moment, query), samples in answers.items():
        if (moment, query.dashboard_uid, query.panel_id) == (at, dashboard_uid, number):
            for labels, value in samples.items():
                name = legends[query.ref_id]
                for label, text in json.loads(labels).items():
                    name = name.replace(f"{{{{{label}}}}}", text)
                assert name not in found, f"two series are called {name}"
                found[name] = value
    return found


def _name(shown):
    return f"{shown.dashboard}-{shown.panel}"


@pytest.mark.parametrize("shown", AT_NOW, ids=_name)
def test_a_panel_shows_what_is_the_case(answers, shown):
    assert _shown(answers, NOW, shown.dashboard, shown.panel) == pytest.approx(shown.values)


@pytest.mark.parametrize("shown", AT_LATER, ids=_name)
def test_a_panel_shows_nothing_of_what_has_gone(answers, shown):
    assert _shown(answers, LATER, shown.dashboard, shown.panel) == pytest.approx(shown.values)


def _looks_at_now(panel):
    if panel["type"] not in ("stat", "gauge", "bargauge"):
        return False
    own = {window for target in panel["targets"] for window in windows(target["expr"])}
    return own <= {"$__rate_interval"}


@pytest.mark.parametrize(
    ("dashboard_uid", "number"),
    [
        (dashboard["uid"], panel["id"])
        for dashboard in DASHBOARDS
        for panel in panels(dashboard)
        if _looks_at_now(panel)
    ],
)
def test_no_figure_is_left_when_everything_has_gone(answers, dashboard_uid, number):
    assert _shown(answers, LAST, dashboard_uid, number) == {}


def _rows(answers, at, dashboard_uid, number):
    """A table as Grafana merges it: labels to the values of its queries."""
    rows: dict[str, dict[str, float]] = {}
    for (moment, query), samples in answers.items():
        if (moment, query.dashboard_uid, query.panel_id) == (at, dashboard_uid, number):
            for labels, value in samples.items():
                rows.setdefault(labels, {})[query.ref_id] = value
    return {tuple(json.loads(labels).values()): values for labels, values in rows.items()}


def test_the_table_of_backends_shows_each_as_the_balancer_that_sees_it_worst(answers):
    rows = _rows(answers, NOW, "fleet-health", 2)
    assert rows[("o1",)] == {"A": 1, "B": 2, "C": 5, "D": 100}
    assert {row: values["A"] for row, values in rows.items()} == {
        ("o1",): 1,
        ("o2",): 0,
        ("o3",): 0,
    }


def test_the_table_of_tenants_has_the_ten_busiest_with_their_failures(answers):
    rows = _rows(answers, NOW, "performance-overview", 12)
    assert set(rows) == {(f"t{number:02}",) for number in range(3, 13)}
    assert rows[("t12",)] == pytest.approx({"A": 1.2 * HOUR, "B": 0.05})


def test_the_table_of_modes_has_a_price_for_questions_only(answers):
    rows = _rows(answers, NOW, "cost-optimization", 8)
    assert rows[("EUR", "rag")] == pytest.approx({"A": 2, "B": 2 / (3.5 * HOUR)})
    assert rows[("EUR", "other")] == pytest.approx({"A": 2 / 24})


def test_the_table_of_modes_of_the_cache_counts_no_errors(answers):
    rows = _rows(answers, NOW, "cache-performance", 9)
    assert rows[("deep",)] == pytest.approx({"A": 30 * HOUR, "B": 8 * HOUR, "C": 30 / 38})


def test_services_are_shown_as_down_and_strangers_not_at_all(answers):
    up = _shown(answers, LATER, "fleet-health", 10)
    assert up == {
        "rag rag-1": 0, "rag rag-2": 0, "cache cache-1": 1, "cache cache-2": 0,
        "balancer balancer-1": 1, "balancer balancer-2": 1,
    }  # fmt: skip
