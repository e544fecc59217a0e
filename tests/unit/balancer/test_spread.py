"""How far off estimates have been."""

import pytest

from services.balancer.core.spread import Spread


def test_without_samples_it_is_the_prior():
    assert Spread(0.06, 5.0).deviation("m") == pytest.approx(0.06)


def test_samples_as_expected_make_it_small():
    spread = Spread(0.06, 5.0)
    for _ in range(100):
        spread.note("m", 0.0, weight=1.0)
    assert spread.deviation("m") < 0.02
    assert spread.deviation("n") == pytest.approx(0.06)


def test_it_comes_to_that_of_the_samples():
    spread = Spread(0.06, 5.0)
    for number in range(400):
        spread.note("m", 0.3 if number % 2 else -0.3, weight=1.0)
    assert spread.deviation("m") == pytest.approx(0.3, rel=0.05)


def test_what_was_long_ago_counts_little():
    spread = Spread(0.06, 5.0)
    spread.note("m", 0.5, weight=1.0)
    for _ in range(300):
        spread.note("m", 0.01, weight=1.0)
    assert spread.deviation("m") < 0.03


def test_samples_that_tell_little_change_little():
    light, heavy = Spread(0.06, 5.0), Spread(0.06, 5.0)
    light.note("m", 0.5, weight=0.1)
    heavy.note("m", 0.5, weight=1.0)
    assert 0.06 < light.deviation("m") < heavy.deviation("m")
