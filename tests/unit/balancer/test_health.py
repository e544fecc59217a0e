import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from services.balancer.core.health import Health, Signal, after, seconds_until_check

SIGNALS = st.lists(st.sampled_from(Signal), max_size=60)
SUCCESSES = (Signal.CHECK_SUCCEEDED, Signal.REQUEST_SUCCEEDED)
LOSSES = (Signal.CHECK_CONNECTION_LOST, Signal.REQUEST_CONNECTION_LOST)


def run(signals, health=None):
    health = health or Health()
    for signal in signals:
        health = after(health, signal, "why")
    return health


@given(SIGNALS, st.sampled_from(SUCCESSES))
def test_one_success_brings_a_backend_back_whatever_happened_before(signals, success):
    health = run([*signals, success])
    assert health.healthy
    assert health.consecutive_failure_count == 0
    assert health.last_failure == ""


@given(SIGNALS, st.sampled_from(LOSSES))
def test_a_lost_connection_takes_a_backend_out_at_once(signals, loss):
    health = run([*signals, loss])
    assert not health.healthy
    assert health.last_failure == "why"


@given(SIGNALS)
def test_failures_are_counted_since_the_last_success(signals):
    failures = list(itertools.takewhile(lambda each: each not in SUCCESSES, reversed(signals)))
    health = run(signals)
    assert health.consecutive_failure_count == len(failures)
    assert health.checked == bool(signals)


@given(SIGNALS)
def test_the_next_check_comes_between_one_and_thirty_seconds_from_a_failure(signals):
    health = run([*signals, Signal.REQUEST_FAILED])
    assert 1 <= seconds_until_check(health, math.inf) <= 30
    assert seconds_until_check(health, 0.2) == 0.2


def test_two_failures_leave_a_healthy_backend_in_and_three_take_it_out():
    healthy = run([Signal.CHECK_SUCCEEDED])
    assert run([Signal.REQUEST_FAILED] * 2, healthy).healthy
    assert not run([Signal.REQUEST_FAILED] * 3, healthy).healthy
    assert not run([Signal.CHECK_FAILED] * 3, healthy).healthy


def test_a_backend_takes_no_requests_before_its_first_success():
    assert not Health().healthy
    assert not run([Signal.CHECK_FAILED]).healthy


def test_pauses_double_with_each_failed_check_up_to_thirty_seconds():
    health, pauses = run([Signal.CHECK_SUCCEEDED]), []
    health = after(health, Signal.REQUEST_CONNECTION_LOST)
    for _ in range(7):
        pauses.append(seconds_until_check(health, 30.0))
        health = after(health, Signal.CHECK_CONNECTION_LOST)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_many_requests_that_fail_at_once_do_not_delay_the_recovery():
    health = run([Signal.CHECK_SUCCEEDED] + [Signal.REQUEST_CONNECTION_LOST] * 50)
    assert seconds_until_check(health, 30.0) == 1


def test_a_backend_that_only_passes_checks_is_tried_less_and_less_often():
    health, pauses = run([Signal.CHECK_SUCCEEDED]), []
    for _ in range(4):
        health = run([Signal.REQUEST_FAILED] * 3, health)
        pauses.append(seconds_until_check(health, 30.0))
        health = after(health, Signal.CHECK_SUCCEEDED)
    assert pauses == [1, 2, 4, 8]


def test_a_successful_request_starts_the_pauses_over():
    health = run([Signal.CHECK_FAILED] * 5 + [Signal.CHECK_SUCCEEDED, Signal.REQUEST_SUCCEEDED])
    health = after(health, Signal.REQUEST_CONNECTION_LOST)
    assert seconds_until_check(health, 30.0) == 1


def test_a_backend_without_failures_is_checked_at_the_interval_and_a_suspect_soon():
    healthy = run([Signal.CHECK_SUCCEEDED])
    assert seconds_until_check(healthy, 30.0) == 30
    assert seconds_until_check(after(healthy, Signal.CHECK_FAILED), 30.0) == 1
