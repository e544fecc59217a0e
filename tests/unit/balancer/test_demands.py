"""What requests ask of the fleet."""

import pytest

from services.balancer.core.demand import Priority
from services.balancer.core.requests import GenerationRequest, Operation, Routing
from services.balancer.demands import generation_demand
from tests.kit.balancer import FleetUnderTest, MemoryServer, a_chat_model
from tests.kit.virtual_time import run_virtually

CHAT = "chat:latest"


@pytest.mark.parametrize(
    ("priority", "weight"),
    [(Priority.SYSTEM, 0.3), (Priority.INTERACTIVE, 0.3), (Priority.BATCH, 1.0)],
)
def test_who_reads_along_minds_the_rest_of_an_answer_less_than_who_waits_for_its_end(
    priority, weight
):
    async def demand():
        kit = FleetUnderTest(MemoryServer(a_chat_model(CHAT)))
        await kit.check()
        request = GenerationRequest(
            operation=Operation.GENERATE,
            model=CHAT,
            prompt="Say something.",
            routing=Routing(priority=priority),
        )
        return generation_demand(kit.fleet, kit.clock, request, 1).demand

    assert run_virtually(demand()).decode_weight == weight
