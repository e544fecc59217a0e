"""How long a backend may be silent."""

from dataclasses import replace

import pytest

from services.balancer.core.patience import Overruns, Patience

PATIENCE = Patience(
    first_token_seconds=300.0,
    first_token_floor_seconds=8.0,
    stall_seconds=60.0,
    stall_floor_seconds=10.0,
)


@pytest.mark.parametrize(
    ("predicted", "doublings", "limit"),
    [(0.1, 0, 8.0), (4.0, 0, 12.0), (0.1, 1, 16.0), (4.0, 3, 96.0), (4.0, 6, 300.0)],
)
def test_the_first_token_is_given_three_times_what_was_predicted(predicted, doublings, limit):
    assert PATIENCE.first_token(predicted, doublings) == limit


@pytest.mark.parametrize(("rate", "limit"), [(100.0, 10.0), (3.0, 20.0), (0.5, 60.0)])
def test_a_slow_model_may_pause_for_longer(rate, limit):
    assert PATIENCE.stall(rate) == limit


def test_overruns_count_until_a_first_token_comes_in_time():
    overruns = Overruns()
    for expected in (1, 2, 3, 4, 5, 6, 6):
        overruns.note("a:1", "m@1")
        assert overruns.count("a:1", "m@1") == expected
    assert overruns.count("a:1", "n@1") == overruns.count("b:1", "m@1") == 0
    overruns.forgive("a:1", "m@1")
    overruns.forgive("b:1", "m@1")
    assert overruns.count("a:1", "m@1") == 0


def test_a_model_that_has_shown_nothing_on_a_host_is_given_longer():
    patience = replace(PATIENCE, unproven_seconds=60.0)
    assert patience.first_token(0.1, proven=False) == 60.0
    assert patience.first_token(30.0, proven=False) == 90.0
    assert patience.first_token(0.1, proven=True) == 8.0
    assert replace(patience, first_token_seconds=20.0).first_token(0.1, proven=False) == 20.0


def test_three_first_tokens_prove_what_a_model_takes():
    overruns = Overruns()
    for expected in (False, False, True):
        overruns.prove("a:1", "m@1")
        assert overruns.proven("a:1", "m@1") is expected
    assert not overruns.proven("b:1", "m@1")
