"""Room that is kept for requests that have not come yet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.balancer.core.demand import Kind, Priority
from services.balancer.core.headroom import Headroom
from tests.kit.fleets import a_demand

QUIET, FLOODING = "quiet", "flooding"


def of(tenant, count, **fields):
    return [a_demand(number, tenant=tenant, **fields) for number in range(count)]


def accustomed(*present, seconds=60.0, headroom=None):
    """What has been learned where the same were there all the time."""
    headroom = headroom or Headroom()
    for tick in range(int(seconds * 2) + 1):
        headroom.observe(present, 1000.0 + tick / 2)
    return headroom


def left(headroom, waiting, running, slots=8):
    """Says of each in the line whose it is; of those that have not come yet, in brackets."""
    line = headroom.leave(waiting, running, {"chat": slots})
    assert [each for each in line if not each.expected] == waiting
    return [f"({each.tenant})" if each.expected else each.tenant for each in line]


def test_room_for_one_is_kept_before_those_who_have_their_share():
    headroom = accustomed(*of(QUIET, 1), *of(FLOODING, 8))
    assert headroom.contested
    assert left(headroom, of(FLOODING, 2), of(FLOODING, 4)) == [f"({QUIET})", FLOODING, FLOODING]
    waiting = [*of(QUIET, 1), *of(FLOODING, 1)]
    assert left(headroom, waiting, of(FLOODING, 7)) == [QUIET, f"({QUIET})", FLOODING]


def test_nobody_who_has_less_than_a_share_is_kept_from_a_slot():
    headroom = accustomed(*of(QUIET, 1), *of(FLOODING, 8))
    assert left(headroom, of(FLOODING, 2), of(FLOODING, 3)) == [FLOODING, FLOODING]


def test_no_room_is_kept_for_more_than_a_share_nor_for_more_than_is_usual():
    headroom = accustomed(*of(QUIET, 6), *of(FLOODING, 8))
    running = [*of(QUIET, 4), *of(FLOODING, 4)]
    assert left(headroom, of(FLOODING, 1), running) == [FLOODING]
    headroom = accustomed(*of(QUIET, 1), *of(FLOODING, 8))
    running = [*of(QUIET, 3), *of(FLOODING, 4)]
    assert left(headroom, of(FLOODING, 1), running) == [FLOODING]


def test_a_single_slot_is_never_left_empty():
    headroom = accustomed(*of(QUIET, 1), *of(FLOODING, 8))
    assert left(headroom, of(FLOODING, 1), [], slots=1) == [FLOODING]


def test_a_tenant_alone_has_all_slots():
    headroom = accustomed(*of(FLOODING, 8))
    assert not headroom.contested
    assert left(headroom, of(FLOODING, 1), of(FLOODING, 7)) == [FLOODING]


@pytest.mark.parametrize("fields", [{"priority": Priority.BATCH}, {"kind": Kind.EMBED}])
def test_no_room_is_kept_for_what_may_wait_or_is_soon_done(fields):
    headroom = accustomed(*of(QUIET, 1, **fields), *of(FLOODING, 8))
    assert left(headroom, of(FLOODING, 1), of(FLOODING, 7)) == [FLOODING]


def test_no_room_is_kept_before_a_higher_class():
    headroom = accustomed(*of(QUIET, 1), *of(FLOODING, 8))
    urgent = of(FLOODING, 1, priority=Priority.SYSTEM)
    assert left(headroom, urgent, of(FLOODING, 7)) == [FLOODING]


def test_a_tenant_that_seldom_asks_is_not_worth_an_empty_slot():
    headroom = Headroom()
    for second in range(600):
        rare = of(QUIET, 1) if second % 10 == 0 else []
        headroom.observe([*rare, *of(FLOODING, 8)], 1000.0 + second)
    assert headroom.mean(QUIET, "chat") == pytest.approx(0.1, abs=0.03)
    assert left(headroom, of(FLOODING, 1), of(FLOODING, 7)) == [FLOODING]


def test_what_is_usual_is_known_after_seconds_and_forgotten_after_minutes():
    headroom = accustomed(*of(QUIET, 2), *of(FLOODING, 8), seconds=3.0)
    assert headroom.mean(QUIET, "chat") == pytest.approx(2.0)
    assert headroom.mean("nobody", "chat") == 0.0
    for second in range(500):
        headroom.observe(of(FLOODING, 8), 1003.0 + second)
    assert headroom.mean(QUIET, "chat") == 0.0
    assert not headroom.contested


def test_other_models_are_another_matter():
    headroom = accustomed(*of(QUIET, 1, model_key="other"), *of(FLOODING, 8))
    assert left(headroom, of(FLOODING, 1), of(FLOODING, 7)) == [FLOODING]


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 6)),
    st.lists(st.sampled_from("abcd"), max_size=12),
    st.lists(st.sampled_from("abcd"), max_size=8),
    st.integers(0, 8),
)
def test_at_most_one_slot_is_kept_and_the_order_of_the_rest_is_untouched(
    usual, waiting, running, slots
):
    headroom = accustomed(*(each for tenant, n in usual.items() for each in of(tenant, n)))
    queue = [a_demand(number, tenant=tenant) for number, tenant in enumerate(waiting)]
    flying = [a_demand(100 + number, tenant=tenant) for number, tenant in enumerate(running)]
    line = headroom.leave(queue, flying, {"chat": slots})
    assert [each for each in line if not each.expected] == queue
    expected = [place for place, each in enumerate(line) if each.expected]
    assert len(expected) <= 1
    for place in expected:
        share = slots // sum(n > 0 for n in usual.values())
        assert running.count(line[place].tenant) < share
        assert running.count(line[place + 1].tenant) >= share
