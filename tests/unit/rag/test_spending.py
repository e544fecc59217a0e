"""What is spent is told apart by model, whatever names callers bring along."""

import pytest

from services.common.clock import SystemClock
from services.common.metrics import OVERFLOW, Metrics
from services.rag.core.conversation import TokenUsage
from services.rag.metrics import CATALOGUE
from services.rag.spending import LLM, Spending
from services.rag.tenants import Tenants

USAGE = TokenUsage(10, 1)


@pytest.fixture
def metrics():
    return Metrics(CATALOGUE, version="test")


@pytest.fixture
def spending(metrics):
    tenants = Tenants(metrics, limit=5, clock=SystemClock())
    return Spending(metrics, tenants=tenants, currency="EUR")


def models(metrics, name="rag_llm_calls_total"):
    return {
        sample.labels["model"]
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == name
    }


def test_names_that_callers_track_leave_room_for_the_models_of_the_fleet(spending, metrics):
    for number in range(100):
        spending.add_text("chat", spending.tracked(f"invented-{number}"), USAGE)
    for number in range(20):
        spending.add_text("rag", f"served-{number}", USAGE)
        spending.add_cost(5, tenant_id="acme", mode="rag", kind=LLM, model=f"served-{number}")
    assert {f"served-{number}" for number in range(20)} <= models(metrics)
    assert {f"served-{number}" for number in range(20)} <= models(metrics, "rag_model_cost_total")
    assert len(models(metrics)) <= 32
    assert OVERFLOW in models(metrics)


def test_a_model_of_the_fleet_that_callers_track_too_is_the_same(spending):
    for number in range(100):
        spending.tracked(f"invented-{number}")
    spending.add_text("rag", "talker", USAGE)
    assert spending.tracked("talker") == "talker"
    assert spending.tracked("invented-0") == "invented-0"
    assert spending.tracked("another") == OVERFLOW
