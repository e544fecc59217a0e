"""What is certain of those whom a plan does not come to."""

import pytest

from services.balancer.core.demand import Kind
from services.balancer.core.eligibility import kind_of
from services.balancer.core.openings import earliest_first_token
from services.balancer.core.plan import plan
from services.balancer.core.snapshot import Residency
from tests.kit.fleets import EMBEDDING, NOW, a_backend, a_demand, a_fleet, a_model, ties

LIMIT = 64
# Of the requests that these tests ask for, one is read in half a second and written in two.
READ_SECONDS, SERVICE_SECONDS = 0.5, 2.5


def a_fleet_of(*models, key="chat"):
    backends = [a_backend(f"h{index}", {key: model}) for index, model in enumerate(models)]
    return a_fleet(*backends, policy={"walk_limit": LIMIT})


def bound(snapshot, queue, demand=None, *, quick=False):
    """When a request of a queue, the last one by default, has its first token at the earliest."""
    made = plan(snapshot, queue, ties(snapshot), quick=quick)
    demand = demand or queue[-1]
    return earliest_first_token(demand, made.openings.get(kind_of(demand), ()), NOW)


def chats(count, **fields):
    return [a_demand(number, **fields) for number in range(count)]


def test_who_is_behind_all_that_were_placed_waits_for_them():
    snapshot = a_fleet_of(a_model(busy_until=(NOW + 3,)))
    expected = 3.0 + LIMIT * SERVICE_SECONDS + READ_SECONDS
    assert bound(snapshot, chats(100)) == pytest.approx(expected)


def test_the_slot_that_is_free_first_counts_and_what_is_remembered_there():
    snapshot = a_fleet_of(a_model(busy_until=(NOW + 9,)), a_model(busy_until=(NOW + 3,)))
    behind = a_demand(1, prefix_hits={"h1": 400})
    assert bound(snapshot, chats(1), behind) == pytest.approx(3.0 + SERVICE_SECONDS + 0.1)


def test_who_has_failed_a_request_does_not_serve_it():
    snapshot = a_fleet_of(a_model(busy_until=(NOW + 9,)), a_model(busy_until=(NOW + 3,)))
    tried = a_demand(1, tried=frozenset({"h1"}))
    assert bound(snapshot, chats(1), tried) == pytest.approx(9.0 + READ_SECONDS)
    assert bound(snapshot, chats(1), a_demand(1, tried=frozenset({"h0", "h1"}))) is None


def test_a_model_that_is_not_in_memory_takes_at_least_its_load():
    snapshot = a_fleet_of(
        a_model(busy_until=(NOW + 60,)), a_model(residency=Residency.INSTALLED, load_seconds=30.0)
    )
    # It is loaded for the first, and gives the second a slot when that has been served.
    assert bound(snapshot, chats(1), a_demand(1)) == pytest.approx(30.0 + SERVICE_SECONDS + 0.5)
    barred = a_model(residency=Residency.INSTALLED, load_seconds=30.0, load_barred_until=NOW + 5)
    snapshot = a_fleet_of(a_model(busy_until=(NOW + 60,)), barred)
    assert bound(snapshot, chats(1), a_demand(1)) == pytest.approx(30.0 + READ_SECONDS)


def test_texts_may_share_the_slot_of_those_before_them():
    snapshot = a_fleet_of(a_model(capabilities=EMBEDDING, busy_until=(NOW + 3,)), key="embed")
    texts = {"model_key": "embed", "kind": Kind.EMBED, "output_token_count": 0.0}
    assert bound(snapshot, chats(100, **texts)) == pytest.approx(3.0 + READ_SECONDS)


def test_nothing_is_said_of_models_that_nobody_placed_asks_for_nor_by_quick_plans():
    snapshot = a_fleet_of(a_model(busy_until=(NOW + 3,)))
    assert bound(snapshot, chats(3), a_demand(4, model_key="other")) is None
    assert bound(snapshot, chats(3), quick=True) is None


def test_who_comes_under_another_name_of_a_model_does_not_count_for_those_before():
    shared = a_model(busy_until=(NOW + 3,))
    snapshot = a_fleet(a_backend("one", {"alias": shared, "chat": shared}))
    queue = [*chats(2), a_demand(2, model_key="alias")]
    # Others of the first name may have been passed over for its sake.
    assert bound(snapshot, queue, a_demand(3)) == pytest.approx(3.0 + 2 * SERVICE_SECONDS + 0.5)
