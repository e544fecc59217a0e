"""Metrics tell the first tenants apart, and show how many have asked something of late."""

from services.common.metrics import OVERFLOW, Metrics
from services.rag.metrics import CATALOGUE
from services.rag.tenants import Tenants


class Clock:
    time = 100.0

    def monotonic(self):
        return self.time


class Counting:
    def __init__(self, limit):
        self.clock = Clock()
        self.metrics = Metrics(CATALOGUE, version="test")
        self.tenants = Tenants(self.metrics, limit=limit, clock=self.clock)

    def value(self, name, **labels):
        self.metrics.refresh()
        return self.metrics.registry.get_sample_value(name, labels)


def test_the_first_tenants_keep_their_names_and_the_others_share_one():
    counting = Counting(2)
    assert [counting.tenants.label(each) for each in ("a", "b", "c", "a", "d")] == [
        "a",
        "b",
        OVERFLOW,
        "a",
        OVERFLOW,
    ]
    assert counting.value("telemetry_label_overflow_total", label="tenant") == 2


def test_a_named_tenant_is_there_with_zero_for_each_outcome():
    counting = Counting(2)
    counting.tenants.label("a")
    requests = "rag_tenant_requests_total"
    for outcome in ("success", "error", "cancelled"):
        assert counting.value(requests, tenant="a", outcome=outcome) == 0


def test_a_tenant_is_active_for_five_minutes_after_its_last_question():
    counting = Counting(1)
    assert counting.value("rag_active_tenants") == 0
    for tenant, seconds in (("a", 0), ("b", 200), ("c", 50), ("a", 0)):
        counting.clock.time += seconds
        counting.tenants.see(tenant)
    assert counting.value("rag_active_tenants") == 3
    counting.clock.time += 299
    assert counting.value("rag_active_tenants") == 2
    counting.clock.time += 2
    assert counting.value("rag_active_tenants") == 0
    counting.tenants.see("d")
    assert counting.value("rag_active_tenants") == 1
