import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.balancer.core.decay import DecayedMean

VALUES = st.floats(0.001, 1000)
STEPS = st.lists(st.tuples(VALUES, st.floats(0, 1000)), min_size=1, max_size=50)


@given(STEPS, VALUES, st.floats(0, 1e6))
def test_mean_and_estimate_stay_between_what_was_seen_and_expected(steps, prior, later):
    mean, now = DecayedMean(), 0.0
    for sample, pause in steps:
        now += pause
        mean = mean.add(sample, now)
    samples = [sample for sample, _ in steps]
    assert min(samples) * 0.999 <= mean.value <= max(samples) * 1.001
    assert 0 < mean.weight <= 20
    estimate = mean.estimate(prior, now + later)
    assert min(*samples, prior) * 0.999 <= estimate <= max(*samples, prior) * 1.001


def test_without_samples_the_prior_is_expected():
    assert not DecayedMean().known
    assert DecayedMean().estimate(7.0, 123.0) == 7.0


def test_one_bad_sample_is_forgiven_with_time():
    mean = DecayedMean().add(30.0, 0.0)
    estimates = [mean.estimate(1.0, now) for now in (0.0, 300.0, 3000.0)]
    assert estimates[0] == 15.5
    assert estimates == sorted(estimates, reverse=True)
    assert estimates[-1] == pytest.approx(1.0, abs=0.01)


def test_twenty_samples_in_quick_succession_turn_the_mean():
    mean = DecayedMean()
    for _ in range(1000):
        mean = mean.add(1.0, 0.0)
    for _ in range(20):
        mean = mean.add(10.0, 0.0)
    assert 6 < mean.value < 8
