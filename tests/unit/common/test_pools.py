import pytest

from services.common.metrics import Metrics
from services.common.pools import PoolGauge


class Clock:
    def __init__(self):
        self.now_seconds = 0.0

    def monotonic(self):
        return self.now_seconds


@pytest.fixture
def metrics():
    return Metrics((), version="1")


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(f"connection_pool_{name}", {"pool": "redis", **labels})


def test_a_pool_is_shown_from_the_start(metrics):
    PoolGauge(metrics, "redis", 32)
    assert value(metrics, "max_connections") == 32
    assert value(metrics, "connections", state="in_use") == 0
    assert value(metrics, "connections", state="idle") == 0
    assert value(metrics, "wait_seconds_count") == 0


def test_its_state_is_set_or_read_when_somebody_looks(metrics):
    pool = PoolGauge(metrics, "redis", 32)
    pool.set(3, 4)
    assert value(metrics, "connections", state="in_use") == 3
    assert value(metrics, "connections", state="idle") == 4
    state = [5, 6]
    pool.watch(lambda: tuple(state))
    assert value(metrics, "connections", state="in_use") == 3
    metrics.refresh()
    assert value(metrics, "connections", state="in_use") == 5
    state[0] = 0
    metrics.refresh()
    assert value(metrics, "connections", state="in_use") == 0
    assert value(metrics, "connections", state="idle") == 6
    pool.set_maximum(64)
    assert value(metrics, "max_connections") == 64


def test_waits_are_measured_whether_they_end_well_or_not(metrics):
    clock = Clock()
    pool = PoolGauge(metrics, "redis", 32, clock=clock)
    with pool.waiting():
        clock.now_seconds += 0.25

    def wait_in_vain():
        with pool.waiting():
            clock.now_seconds += 0.5
            raise TimeoutError

    with pytest.raises(TimeoutError):
        wait_in_vain()
    pool.observe_wait(1.0)
    assert value(metrics, "wait_seconds_count") == 3
    assert value(metrics, "wait_seconds_sum") == 1.75
