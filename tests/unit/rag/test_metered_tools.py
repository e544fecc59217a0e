"""What a model costs that is asked for tools counts like any other generation."""

import pytest

from services.common.clock import SystemClock
from services.common.metrics import Metrics
from services.rag.books import BookLimits, Books
from services.rag.budgets import Budgets
from services.rag.core.conversation import (
    ChatCompleted,
    ChatMessage,
    ChatStarted,
    Sampling,
    TokenUsage,
    ToolCall,
)
from services.rag.core.prices import NO_PRICES
from services.rag.ledger import Ledger
from services.rag.meter import Meter, current_meter
from services.rag.metered_tools import MeteredToolModels
from services.rag.metrics import CATALOGUE
from services.rag.spending import Spending
from services.rag.tenants import Tenants
from services.rag.usage_port import Retention

STARTED = ChatStarted(model="talker:latest", model_digest="d", backend_id="b")
CALLS = (ToolCall("1", "calculator", "{}"),)
COMPLETED = ChatCompleted(finish_reason="stop", usage=TokenUsage(50, 10), generation_seconds=1.0)


class Script:
    def __init__(self, *events):
        self.events = events

    async def chat_with_tools(self, model, messages, sampling, tools, *, time_limit_seconds=None):
        for event in self.events:
            yield event


class Refusing(Budgets):
    def check(self, tenant_id):
        raise PermissionError(tenant_id)


@pytest.fixture
def meter():
    found = Meter("agent")
    token = current_meter.set(found)
    yield found
    current_meter.reset(token)


def metered(*events, budgets=Budgets):
    clock, metrics = SystemClock(), Metrics(CATALOGUE, version="test")
    limits = budgets(clock=clock, metrics=metrics)
    books = Books(
        None,
        budgets=limits,
        clock=clock,
        metrics=metrics,
        limits=BookLimits(
            waiting_count=10,
            recent_count=2,
            slow_seconds=2.0,
            retention=Retention(queries=1, usage=1),
        ),
    )
    ledger = Ledger(
        books,
        budgets=limits,
        prices=NO_PRICES,
        clock=clock,
        spending=Spending(metrics, tenants=Tenants(metrics, limit=5, clock=clock), currency=""),
    )
    return MeteredToolModels(Script(*events), ledger=ledger)


async def heard(models, count=None):
    chat = models.chat_with_tools("talker", [ChatMessage("user", "How much?")], Sampling(), [])
    events = []
    async for event in chat:
        events.append(event)
        if len(events) == count:
            break
    await chat.aclose()
    return events


async def test_a_step_counts_what_the_fleet_says(meter):
    events = (STARTED, CALLS, COMPLETED)
    assert await heard(metered(*events)) == list(events)
    amounts = meter.amounts
    assert (amounts.prompt_token_count, amounts.completion_token_count) == (50, 10)
    assert (amounts.call_count, amounts.estimated_call_count) == (1, 0)


async def test_a_step_that_is_broken_off_is_estimated(meter):
    await heard(metered(STARTED, "I", " know", COMPLETED), count=3)
    amounts = meter.amounts
    assert amounts.estimated_call_count == 1
    assert amounts.completion_token_count == 2
    assert amounts.prompt_token_count > 0


async def test_a_tenant_without_budget_asks_nothing(meter):
    with pytest.raises(PermissionError):
        await heard(metered(STARTED, COMPLETED, budgets=Refusing))
    assert meter.amounts.call_count == 0
