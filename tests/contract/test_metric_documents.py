"""No document names a metric that no service shows."""

import re
from pathlib import Path

import pytest

from services.balancer.metrics import CATALOGUE as BALANCER
from services.cache.metrics import CATALOGUE as CACHE
from services.common.metrics import COMMON_METRICS
from services.rag.metrics import CATALOGUE as RAG

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path for folder in ("docs", "dashboards", "deploy") for path in (ROOT / folder).rglob("*.md")
)
KNOWN = {metric.name for metric in (*COMMON_METRICS, *RAG, *CACHE, *BALANCER)}
PREFIXES = ("rag_", "cache_", "balancer_", "service_", "connection_pool_", "telemetry_", "rpc_")
# Keys of scenario files.
OTHERS = {"cache_limit_bytes"}
# What metrics end in tells them from the names of fields and tests.
METRIC = re.compile(
    rf"\b(?:{'|'.join(PREFIXES)})[a-z0-9_]*"
    r"(?:_total|_seconds|_bytes|_ratio|_score|_info|_connections)(?:_bucket|_sum|_count)?\b"
)


def bare(name):
    return re.sub(r"_(bucket|sum|count)$", "", name)


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *DOCUMENTS], ids=lambda path: str(path.relative_to(ROOT))
)
def test_documents_name_metrics_that_there_are(path):
    named = {bare(name) for name in METRIC.findall(path.read_text())}
    assert named - KNOWN - OTHERS == set()


def test_the_rule_finds_names():
    text = "`rag_requests_total`, rag_request_duration_seconds_bucket{le}, `cache_degraded`"
    assert {bare(name) for name in METRIC.findall(text)} == {
        "rag_requests_total",
        "rag_request_duration_seconds",
    }
