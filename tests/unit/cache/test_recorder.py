"""Every series exists from the start, and every metric of the catalogue is used."""

import re
from pathlib import Path

import services.cache
from services.cache.metrics import CATALOGUE, MODES


def test_counters_exist_before_the_first_call(bench) -> None:
    for layer in ("embedding", "inference", "chunk"):
        for result in ("hit", "miss", "error"):
            labels = {"layer": layer, "mode": "unknown", "result": result}
            assert bench.metric("cache_lookups_total", **labels) == 0
        for outcome in ("stored", "dropped", "refused", "too_large", "not_reusable"):
            assert bench.metric("cache_writes_total", layer=layer, outcome=outcome) == 0
        for reason in ("capacity", "expired"):
            assert bench.metric("cache_evictions_total", layer=layer, reason=reason) == 0
    for mode in MODES:
        labels = {"layer": "inference", "mode": mode, "result": "hit"}
        assert bench.metric("cache_lookups_total", **labels) == 0
    assert bench.metric("cache_degraded") == 0


def test_each_metric_of_the_catalogue_is_used_and_no_other(bench) -> None:
    folder = Path(services.cache.__file__).parent
    sources = [path.read_text() for path in folder.rglob("*.py") if path.name != "metrics.py"]
    used = set(re.findall(r'"(cache_[a-z_]+)"', "".join(sources)))
    assert used == {metric.name for metric in CATALOGUE}
