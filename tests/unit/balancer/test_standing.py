import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.balancer.core.standing import (
    RULES,
    Signal,
    Standing,
    State,
    after,
    allowed_out,
    failure_ratio,
    needs_canary,
    next_probe_at,
    surcharge_seconds,
    takes_requests,
)

INTERVAL = 30.0
HEALTHY = after(Standing(), Signal.CHECK_SUCCEEDED, 0.0, jitter=0.0)
REQUEST_FAILURES = (Signal.REQUEST_FAILED, Signal.REQUEST_TIMED_OUT, Signal.STALLED)
HISTORIES = st.lists(
    st.tuples(st.sampled_from(Signal), st.floats(0, 100), st.floats(-1, 1)), max_size=60
)


def run(signals, standing=HEALTHY, now=0.0, step=0.0, **more):
    for signal in signals:
        now += step
        standing = after(standing, signal, now, jitter=0.0, message="why", **more)
    return standing


def replay(history, standing=None, **more):
    standing, now = standing or Standing(), 0.0
    for signal, pause, jitter in history:
        now += pause
        standing = after(standing, signal, now, jitter=jitter, message="why", **more)
    return standing, now


def ejected(count=1, now=0.0):
    """A backend that went out for failing requests, for the count-th time."""
    standing = HEALTHY
    for _ in range(count):
        standing = run([Signal.REQUEST_FAILED] * 3, standing, now)
        if standing.ejection_count < count:
            now = standing.ejected_until
            standing = run([Signal.CHECK_SUCCEEDED, Signal.CANARY_SUCCEEDED], standing, now)
    return standing


def recover(standing, now, *, canary=Signal.CANARY_SUCCEEDED):
    """Runs checks and canaries that all succeed when they are due; returns when it is in."""
    for _ in range(1000):
        if takes_requests(standing):
            return standing, now
        if needs_canary(standing, now):
            standing = after(standing, canary, now, jitter=0.0)
        else:
            now = max(now, next_probe_at(standing, INTERVAL))
            standing = after(standing, Signal.CHECK_SUCCEEDED, now, jitter=0.0)
    raise AssertionError("never came back")


# Going out.


def test_a_backend_takes_no_requests_before_its_first_success_and_then_at_once():
    assert not takes_requests(Standing())
    assert next_probe_at(Standing(), INTERVAL) == -math.inf
    assert takes_requests(HEALTHY)
    assert HEALTHY.state is State.CLOSED


@given(HISTORIES, st.sampled_from([Signal.REQUEST_CONNECTION_LOST, Signal.CHECK_CONNECTION_LOST]))
def test_a_lost_connection_takes_a_backend_out_at_once(history, loss):
    standing, now = replay(history)
    standing = after(standing, loss, now, jitter=0.0, message="why")
    assert not takes_requests(standing)
    assert standing.last_failure == "why"


@pytest.mark.parametrize("failure", REQUEST_FAILURES)
def test_three_failures_in_a_row_take_a_backend_out(failure):
    assert takes_requests(run([failure] * 2))
    assert run([failure] * 3).state is State.EJECTED
    assert takes_requests(run([failure, Signal.REQUEST_SUCCEEDED, failure, failure]))


def test_checks_that_succeed_do_not_hide_failing_requests():
    standing = run([Signal.REQUEST_FAILED, Signal.CHECK_SUCCEEDED] * 2 + [Signal.REQUEST_FAILED])
    assert standing.state is State.EJECTED


def test_two_failures_among_five_requests_of_half_a_minute_take_a_backend_out():
    good, bad = Signal.REQUEST_SUCCEEDED, Signal.REQUEST_FAILED
    assert takes_requests(run([good, good, good, good, bad]))
    assert takes_requests(run([good, bad, good, bad]))
    assert not takes_requests(run([good, bad, good, good, bad]))
    assert takes_requests(run([good, bad, good, good, bad], step=20.0))


def test_two_missed_checks_in_a_row_take_a_backend_out():
    assert takes_requests(run([Signal.CHECK_FAILED]))
    assert not takes_requests(run([Signal.CHECK_FAILED] * 2))
    for proof in (Signal.CHECK_SUCCEEDED, Signal.REQUEST_SUCCEEDED):
        assert takes_requests(run([Signal.CHECK_FAILED, proof, Signal.CHECK_FAILED]))


def test_a_busy_backend_gets_dearer_and_goes_out_only_when_it_stays_busy():
    busy = run([Signal.BUSY])
    assert takes_requests(busy)
    assert busy.failure_streak == 0
    charges = [surcharge_seconds(busy, now) for now in (0.0, 10.0, 60.0)]
    assert charges == [5.0, pytest.approx(1.84, abs=0.01), pytest.approx(0.01, abs=0.01)]
    assert run([Signal.BUSY] * 3).failure_streak == 1
    assert run([Signal.BUSY] * 5).state is State.EJECTED
    assert takes_requests(run([Signal.BUSY] * 20, step=16.0))


# How long it stays out.


@given(HISTORIES, st.floats(-1, 1))
def test_ejections_last_from_eight_to_three_hundred_and_sixty_seconds(history, jitter):
    standing, now = replay(history, HEALTHY)
    if takes_requests(standing):
        for _ in range(3):
            standing = after(standing, Signal.REQUEST_FAILED, now, jitter=jitter)
        assert 8.0 - 1e-6 <= standing.ejected_until - now <= 360.0 + 1e-6


def test_a_backend_that_passes_checks_and_canaries_but_fails_requests_comes_back_ever_more_rarely():
    standing, now, pauses = HEALTHY, 0.0, []
    for _ in range(8):
        standing = run([Signal.REQUEST_FAILED] * 3, standing, now)
        standing, back_at = recover(standing, now)
        pauses.append(back_at - now)
        now = back_at
    assert pauses == [10, 20, 40, 80, 160, 300, 300, 300]


def test_the_number_of_ejections_halves_with_ten_minutes_without_failure():
    standing = ejected(4)
    now = standing.failed_at
    standing, now = recover(standing, now)
    later = standing.failed_at
    assert run([Signal.REQUEST_FAILED], standing, later + 599).ejection_count == 4
    assert run([Signal.REQUEST_FAILED], standing, later + 601).ejection_count == 2
    assert run([Signal.REQUEST_FAILED] * 2, standing, later + 1201).ejection_count == 1
    assert run([Signal.REQUEST_FAILED], standing, later + 1e9).ejection_count == 0


def test_many_requests_that_fail_at_once_eject_once():
    standing = run([Signal.REQUEST_CONNECTION_LOST] * 50)
    assert standing.ejection_count == 1
    assert standing.since == 0.0


@given(HISTORIES, st.sampled_from([Signal.CANARY_SUCCEEDED, Signal.CANARY_SKIPPED]))
def test_no_backend_stays_out_while_checks_and_canaries_succeed(history, canary):
    standing, now = replay(history)
    standing = after(standing, Signal.RESUMED, now, jitter=0.0)
    standing, back_at = recover(standing, now, canary=canary)
    assert back_at - now <= 360.0


@given(st.floats(0.001, 400.0))
def test_a_restarted_server_is_back_within_two_seconds_of_answering_however_long_it_was_down(
    seconds_down,
):
    standing = ejected(6)
    standing, now = recover(standing, standing.since)
    standing = run([Signal.REQUEST_CONNECTION_LOST], standing, now)
    answers_at = now + seconds_down
    while (due := next_probe_at(standing, INTERVAL)) < answers_at:
        standing = run([Signal.CHECK_CONNECTION_LOST], standing, due)
    _, back_at = recover(standing, due)
    assert back_at - answers_at <= 2.001


def test_a_server_that_has_lost_a_connection_is_checked_at_once_and_the_first_time_back_at_once():
    standing = run([Signal.REQUEST_CONNECTION_LOST], now=5.0)
    assert next_probe_at(standing, INTERVAL) == 5.0
    assert recover(standing, 5.0)[1] == 5.0


def test_a_server_that_loses_requests_but_never_refuses_checks_is_out_for_longer_each_time():
    standing, now, pauses = HEALTHY, 0.0, []
    for _ in range(4):
        standing = run([Signal.REQUEST_CONNECTION_LOST], standing, now)
        standing, back_at = recover(standing, now)
        pauses.append(back_at - now)
        now = back_at
    assert pauses == [0, 20, 40, 80]


# Coming back.


def test_the_way_back_is_a_check_when_its_time_is_over_then_a_canary_then_a_slow_start():
    standing = ejected()
    assert run([Signal.CHECK_SUCCEEDED], standing, 9.0).state is State.EJECTED
    half_open = run([Signal.CHECK_SUCCEEDED], standing, 10.0)
    assert half_open.state is State.HALF_OPEN
    assert not takes_requests(half_open)
    assert needs_canary(half_open, 10.0)
    returning = run([Signal.CANARY_SUCCEEDED], half_open, 11.0)
    assert returning.state is State.RETURNING
    assert takes_requests(returning)
    assert [surcharge_seconds(returning, now) for now in (11, 26, 41, 99)] == [5.0, 2.5, 0.0, 0.0]
    assert run([Signal.CHECK_SUCCEEDED], returning, 40.0).state is State.RETURNING
    assert run([Signal.CHECK_SUCCEEDED], returning, 41.0).state is State.CLOSED


def test_where_there_is_nothing_to_try_a_canary_on_the_check_has_to_do():
    half_open = run([Signal.CHECK_SUCCEEDED], ejected(), 10.0)
    assert run([Signal.CANARY_SKIPPED], half_open, 10.0).state is State.RETURNING


def test_a_failed_canary_sends_it_out_for_longer():
    half_open = run([Signal.CHECK_SUCCEEDED], ejected(), 10.0)
    again = run([Signal.CANARY_FAILED], half_open, 10.0)
    assert again.state is State.EJECTED
    assert again.ejected_until == 30.0


def test_a_failed_check_in_between_sends_it_back():
    half_open = run([Signal.CHECK_SUCCEEDED], ejected(), 10.0)
    assert run([Signal.CHECK_FAILED], half_open, 11.0).state is State.EJECTED


def test_failures_from_before_it_went_out_do_not_count_after_its_return():
    standing, now = recover(ejected(), 0.0)
    assert takes_requests(run([Signal.REQUEST_FAILED] * 2, standing, now + 1))
    old = run([Signal.REQUEST_CONNECTION_LOST] * 9, standing, now + 1, began_at=now - 1)
    assert takes_requests(old)
    assert not takes_requests(
        run([Signal.REQUEST_CONNECTION_LOST], standing, now + 1, began_at=now)
    )


def test_a_request_sent_to_it_for_want_of_another_brings_it_back_and_a_straggler_does_not():
    standing = ejected()
    straggler = run([Signal.REQUEST_SUCCEEDED], standing, 1.0, began_at=-1.0)
    assert straggler.state is State.EJECTED
    assert run([Signal.REQUEST_SUCCEEDED], standing, 1.0).state is State.EJECTED
    sent_since = run([Signal.REQUEST_SUCCEEDED], standing, 1.0, began_at=0.5)
    assert sent_since.state is State.RETURNING


def test_each_further_return_is_dearer_up_to_half_a_minute():
    charges = []
    for count in (1, 2, 3, 9):
        standing, now = recover(ejected(count), 0.0)
        charges.append(surcharge_seconds(standing, now))
    assert charges == [5.0, 10.0, 15.0, 30.0]


@pytest.mark.parametrize("absence", [Signal.CHECK_CONNECTION_LOST, Signal.CHECK_FAILED])
def test_a_server_that_was_not_there_at_the_start_is_not_punished_for_it(absence):
    standing = run([absence] * 9, Standing())
    assert next_probe_at(standing, INTERVAL) == 2.0
    standing, now = recover(standing, 100.0)
    assert now == 100.0
    assert surcharge_seconds(standing, now) == 0.0


# Checks and canaries.


def test_suspects_are_checked_after_one_two_and_four_seconds_up_to_the_interval():
    standing = run([Signal.REQUEST_FAILED], now=100.0)
    pauses, now = [], 100.0
    for _ in range(7):
        due = next_probe_at(standing, INTERVAL)
        pauses.append(due - now)
        now = due
        standing = run([Signal.CHECK_SUCCEEDED], standing, now)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    trusted = run([Signal.REQUEST_SUCCEEDED], standing, now)
    assert next_probe_at(trusted, INTERVAL) == now + 30


def test_an_ejected_backend_is_checked_at_the_latest_when_its_time_is_over():
    standing, dues = ejected(), []
    for _ in range(4):
        dues.append(next_probe_at(standing, INTERVAL))
        standing = run([Signal.CHECK_FAILED], standing, dues[-1])
    assert dues == [1, 3, 7, 10]


def test_a_server_that_refuses_connections_is_checked_every_two_seconds():
    standing, dues = run([Signal.CHECK_CONNECTION_LOST]), []
    for _ in range(4):
        dues.append(next_probe_at(standing, INTERVAL))
        standing = run([Signal.CHECK_CONNECTION_LOST], standing, dues[-1])
    assert dues == [1, 3, 5, 7]


@given(HISTORIES)
def test_the_next_check_is_never_further_away_than_the_interval(history):
    standing, _ = replay(history, HEALTHY)
    assert standing.probed_at <= next_probe_at(standing, INTERVAL) <= standing.probed_at + INTERVAL


@pytest.mark.parametrize("silence", [Signal.REQUEST_TIMED_OUT, Signal.STALLED])
def test_silence_has_a_backend_tried_at_once_and_a_failed_canary_takes_it_out(silence):
    standing = run([silence])
    assert takes_requests(standing)
    assert needs_canary(standing, 0.0)
    assert run([Signal.CANARY_FAILED], standing).state is State.EJECTED
    cleared = run([Signal.CANARY_SUCCEEDED], standing)
    assert takes_requests(cleared)
    assert not needs_canary(cleared, 0.0)


def test_a_backend_without_a_success_for_a_minute_is_tried():
    assert not needs_canary(HEALTHY, 59.0)
    assert needs_canary(HEALTHY, 60.0)
    served = run([Signal.REQUEST_SUCCEEDED], now=30.0)
    assert not needs_canary(served, 89.0)
    assert not needs_canary(run([Signal.CANARY_SKIPPED], now=60.0), 61.0)


def test_one_failed_canary_of_an_idle_backend_has_it_tried_again_and_two_take_it_out():
    once = run([Signal.CANARY_FAILED], now=60.0)
    assert takes_requests(once)
    assert needs_canary(once, 60.0)
    assert run([Signal.CANARY_FAILED], once, 60.0).state is State.EJECTED


# Draining.


@given(HISTORIES, HISTORIES)
def test_a_drained_backend_takes_nothing_whatever_is_learned_of_it(before, then):
    standing, now = replay(before)
    standing = after(standing, Signal.DRAINED, now, jitter=0.0)
    for signal, pause, jitter in then:
        if signal is Signal.RESUMED:
            continue
        now += pause
        standing = after(standing, signal, now, jitter=jitter)
        assert not takes_requests(standing)
        assert not needs_canary(standing, now)
        assert standing.state is State.DRAINED


@given(HISTORIES)
def test_to_drain_and_to_resume_changes_nothing_else(history):
    standing, now = replay(history)
    resumed = after(standing, Signal.RESUMED, now, jitter=0.0)
    both = run([Signal.DRAINED, Signal.RESUMED], standing, now)
    assert both == resumed


# What the planner is told.


@given(HISTORIES)
def test_figures_stay_in_their_ranges(history):
    standing, now = replay(history)
    longest = RULES.longest_surcharge_seconds + RULES.busy_surcharge_seconds
    assert 0.0 <= surcharge_seconds(standing, now) <= longest
    assert 0.0 <= failure_ratio(standing, now) <= 1.0
    assert takes_requests(standing) == (standing.state in (State.CLOSED, State.RETURNING))


def test_failures_raise_the_ratio_and_successes_lower_it():
    assert failure_ratio(HEALTHY, 0.0) == 0.0
    failed = run([Signal.REQUEST_FAILED])
    busy = run([Signal.BUSY])
    assert failure_ratio(failed, 0.0) == failure_ratio(busy, 0.0) == pytest.approx(1 / 6)
    assert failure_ratio(run([Signal.REQUEST_SUCCEEDED] * 20, failed), 0.0) < 0.05


def test_who_comes_back_pays_a_surcharge_that_fades_and_no_record_that_only_requests_could_mend():
    for out in (run([Signal.REQUEST_CONNECTION_LOST]), ejected()):
        back, now = recover(out, 0.0)
        assert failure_ratio(back, now) == 0.0
        assert surcharge_seconds(back, now) > 0.0
        assert surcharge_seconds(back, now + 31.0) == pytest.approx(0.0, abs=0.3)


# The fleet.


def test_half_of_the_backends_of_a_model_may_be_out():
    assert [allowed_out(count) for count in (1, 2, 3, 4, 8)] == [0, 1, 1, 2, 4]
