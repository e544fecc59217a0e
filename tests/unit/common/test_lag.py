import asyncio
import time

import pytest

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


class SetClock:
    """A time that the test tells."""

    def __init__(self):
        self.seconds = 100.0

    def monotonic(self):
        return self.seconds


@pytest.mark.parametrize(
    ("blocked_seconds", "lags"),
    [(0.1, [0.1]), (0.25, [0.25]), (0.6, [0.6, 0.35, 0.1]), (1.0, [1.0, 0.75, 0.5, 0.25])],
)
async def test_a_loop_that_stands_still_counts_for_as_long_as_it_does(blocked_seconds, lags):
    metrics = Metrics((), version="1")
    clock = SetClock()
    lag = LoopLag(metrics, clock)
    lag.start()
    clock.seconds += 0.25 + blocked_seconds
    lag._run()
    lag.stop()
    assert metrics.registry.get_sample_value(f"{NAME}_count") == len(lags)
    assert metrics.registry.get_sample_value(f"{NAME}_sum") == pytest.approx(sum(lags))


async def test_a_night_asleep_is_no_night_of_samples():
    metrics = Metrics((), version="1")
    clock = SetClock()
    lag = LoopLag(metrics, clock)
    lag.start()
    clock.seconds += 8 * 3600
    lag._run()
    lag.stop()
    assert metrics.registry.get_sample_value(f"{NAME}_count") <= 240
    assert metrics.registry.get_sample_value(f"{NAME}_bucket", {"le": "10.0"}) < 240
