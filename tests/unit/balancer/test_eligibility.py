"""Who could serve a request at all, and why another could not."""

import pytest

from services.balancer.core.demand import Kind
from services.balancer.core.eligibility import exclusion_of, kind_of, misfit
from services.balancer.core.terms import Exclusion
from tests.kit.fleets import a_backend, a_demand, a_model

DIGEST = "a" * 64


@pytest.mark.parametrize(
    ("view", "demand", "reason"),
    [
        ({}, {}, None),
        ({"drained": True}, {}, Exclusion.DRAINED),
        ({"models": {}}, {}, Exclusion.MODEL_ABSENT),
        ({}, {"model_key": "other"}, Exclusion.MODEL_ABSENT),
        ({}, {"digest": DIGEST}, None),
        ({}, {"digest": "b" * 64}, Exclusion.OTHER_DIGEST),
        ({}, {"kind": Kind.EMBED}, Exclusion.CAPABILITY_MISSING),
        ({"models": {"chat": a_model(capabilities=None)}}, {"kind": Kind.EMBED}, None),
    ],
)
def test_a_backend_fits_a_request_or_not(view, demand, reason):
    assert misfit(a_backend("one", **view), a_demand(**demand)) == reason
    assert exclusion_of(a_backend("one", **view), a_demand(**demand)) == reason


@pytest.mark.parametrize(
    ("view", "tried", "reason"),
    [
        ({"takes_requests": False}, (), Exclusion.UNHEALTHY),
        ({}, ("one",), Exclusion.TRIED),
        ({}, ("other",), None),
        ({"takes_requests": False, "drained": True}, ("one",), Exclusion.DRAINED),
    ],
)
def test_one_that_fits_may_be_out_or_tried_before(view, tried, reason):
    backend = a_backend("one", **view)
    assert exclusion_of(backend, a_demand(tried=frozenset(tried))) == reason


def test_requests_for_the_same_variant_and_kind_of_work_are_served_by_the_same():
    assert kind_of(a_demand(1)) == kind_of(a_demand(2, tenant="other"))
    assert kind_of(a_demand(kind=Kind.GENERATE)) == kind_of(a_demand(kind=Kind.CHAT))
    others = [
        a_demand(kind=Kind.EMBED),
        a_demand(model_key="other"),
        a_demand(digest=DIGEST),
    ]
    assert len({kind_of(each) for each in (a_demand(), *others)}) == 4
