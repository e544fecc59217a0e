import asyncio
import time

from services.common.clock import SystemClock
from services.common.lag import LoopLag
from services.common.metrics import Metrics
from tests.kit.virtual_time import LoopClock, run_virtually

NAME = "service_event_loop_lag_seconds"


def test_an_idle_loop_is_sampled_four_times_a_second_until_the_end():
    metrics = Metrics((), version="1")

    async def run():
        lag = LoopLag(metrics, LoopClock())
        lag.start()
        await asyncio.sleep(10.1)
        lag.stop()
        await asyncio.sleep(10)

    run_virtually(run())
    assert metrics.registry.get_sample_value(f"{NAME}_count") == 40
    assert metrics.registry.get_sample_value(f"{NAME}_bucket", {"le": "0.001"}) == 40


async def test_a_call_that_blocks_the_loop_shows():
    metrics = Metrics((), version="1")
    lag = LoopLag(metrics, SystemClock())
    lag.start()
    time.sleep(0.4)  # noqa: ASYNC251 - this is the fault that has to show
    async with asyncio.timeout(5):
        while not metrics.registry.get_sample_value(f"{NAME}_count"):
            await asyncio.sleep(0.01)
    lag.stop()
    assert 0.1 <= metrics.registry.get_sample_value(f"{NAME}_sum") < 2
