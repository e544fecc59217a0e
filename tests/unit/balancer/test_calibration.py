import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.balancer.core.calibration import Calibration

SECONDS = st.one_of(st.floats(-1.0, 1e6), st.sampled_from([0.0, math.nan, math.inf]))


@given(st.lists(st.tuples(SECONDS, SECONDS), max_size=50))
def test_figures_are_finite_and_ordered(pairs):
    calibration = Calibration()
    for predicted, actual in pairs:
        calibration.note(predicted, actual, 0.0)
    figures = calibration.figures(0.0)
    assert 0 < figures.p10_ratio <= figures.p50_ratio <= figures.p90_ratio < math.inf
    assert 0 <= figures.mean_absolute_log_error < math.inf
    assert figures.sample_count <= len(pairs)


def test_without_predictions_they_count_as_perfect():
    figures = Calibration().figures(0.0)
    assert (figures.sample_count, figures.p50_ratio) == (0, 1.0)
    assert figures.mean_absolute_log_error == 0.0


def test_ratios_tell_in_which_direction_predictions_are_wrong():
    calibration = Calibration()
    for tenths in range(11):
        calibration.note(1.0, 2.0 ** (tenths - 5), 0.0)
    figures = calibration.figures(0.0)
    assert figures.p10_ratio == pytest.approx(2**-4)
    assert figures.p50_ratio == pytest.approx(1.0)
    assert figures.p90_ratio == pytest.approx(2**4)
    assert figures.mean_absolute_log_error == pytest.approx(math.log(2) * 30 / 11)


def test_what_is_below_a_millisecond_counts_as_that():
    calibration = Calibration()
    calibration.note(0.0, 0.0009, 0.0)
    assert calibration.figures(0.0).p50_ratio == 1.0


def test_only_the_last_five_hundred_of_a_quarter_of_an_hour_count():
    calibration = Calibration()
    for _ in range(600):
        calibration.note(1.0, 2.0, 0.0)
    assert calibration.figures(900.0).sample_count == 500
    calibration.note(1.0, 3.0, 901.0)
    figures = calibration.figures(901.0)
    assert figures.sample_count == 1
    assert figures.p50_ratio == pytest.approx(3.0)
