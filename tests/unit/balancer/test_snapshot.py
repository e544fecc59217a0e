import math

import pytest

from services.balancer.core.models import Capability
from services.balancer.core.snapshot import Policy, Room
from tests.kit.fleets import a_model


def test_a_model_of_unknown_capabilities_may_try_anything():
    assert a_model(capabilities=None).can(Capability.EMBEDDING)
    assert not a_model().can(Capability.EMBEDDING)


@pytest.mark.parametrize(
    ("loaded", "maximum", "needed", "holds"),
    [
        (4096, 0, 4096, True),
        (4096, 0, 4097, False),
        (0, 0, 10**6, True),
        (4096, 4096, 10**6, True),
        (4096, 8192, 10**6, False),
    ],
)
def test_a_context_suffices_if_it_is_large_enough_or_could_not_be_larger(
    loaded, maximum, needed, holds
):
    model = a_model(context_token_count=loaded, maximum_context_token_count=maximum)
    assert model.holds(needed) is holds


def test_beyond_the_rates_that_are_known_the_last_one_holds():
    model = a_model(decode_rates=(50.0, 30.0, 20.0))
    assert [model.decode_rate(count) for count in (0, 1, 2, 3, 9)] == [50, 50, 30, 20, 20]


def test_a_single_model_may_always_try():
    assert Room(model_limit=1, overflow_bytes=1).fits((10**12,))


def test_a_set_fits_within_both_limits_only():
    assert Room(model_limit=2, overflow_bytes=math.inf).fits((5, 5))
    assert not Room(model_limit=2).fits((1, 1, 1))
    assert not Room(model_limit=3, overflow_bytes=10).fits((5, 5))
    assert Room(model_limit=3, overflow_bytes=11).fits((5, 5))


@pytest.mark.parametrize(
    ("needed", "size"), [(1, 4096), (4096, 4096), (4097, 16384), (10**6, 16384)]
)
def test_the_smallest_context_class_that_suffices_is_chosen_or_the_largest(needed, size):
    assert Policy().context_class(needed) == size
