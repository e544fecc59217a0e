import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.balancer.core.cost import Candidate
from services.balancer.core.plan import assess
from services.balancer.core.snapshot import Residency, Room
from tests.kit.fleets import NOW, a_backend, a_demand, a_fleet, a_model

seconds = st.floats(0, 100)
tokens = st.integers(1, 10_000)


def terms(model, demand=None, **view):
    snapshot = a_fleet(a_backend("one", {"chat": model}, **view))
    candidate = assess(snapshot, [], demand or a_demand(), {}).candidates["one"]
    assert isinstance(candidate, Candidate)
    return candidate.terms


def test_on_an_idle_backend_a_request_costs_reading_and_writing():
    found = terms(a_model(overhead_seconds=0.25), a_demand(decode_weight=0.4))
    assert (found.drain, found.load, found.risk) == (0, 0, 0)
    assert found.first_token == pytest.approx(0.25 + 500 / 1000)
    assert found.total == pytest.approx(0.25 + 500 / 1000 + 100 / 50)
    assert found.cost == pytest.approx(0.75 + 0.4 * 2)


@given(
    st.lists(st.floats(NOW - 5, NOW + 50), max_size=3),
    st.sampled_from([Residency.WARM, Residency.INSTALLED, Residency.LOADING]),
    st.floats(0, 1),
    st.floats(0, 1),
    seconds,
)
def test_the_terms_add_up_to_the_cost(busy_until, residency, weight, failing, surcharge):
    model = a_model(busy_until=tuple(busy_until), residency=residency, ready_at=NOW + 3)
    demand = a_demand(decode_weight=weight)
    found = terms(model, demand, failure_ratio=failing, surcharge_seconds=surcharge)
    assert min(found.drain, found.load, found.prefill, found.decode, found.risk) >= 0
    assert found.total == pytest.approx(found.first_token + found.decode)
    assert found.cost == pytest.approx(
        found.drain + found.load + found.prefill + weight * found.decode + found.risk
    )


@given(tokens, tokens)
def test_a_longer_prompt_costs_more(one, other):
    costs = [terms(a_model(), a_demand(prompt_token_count=each)).cost for each in (one, other)]
    assert (costs[0] < costs[1]) == (one < other)


@given(tokens, tokens)
def test_a_longer_answer_costs_more(one, other):
    costs = [
        terms(a_model(), a_demand(output_token_count=float(each))).cost for each in (one, other)
    ]
    assert (costs[0] < costs[1]) == (one < other)


@given(st.integers(0, 499), st.integers(0, 499))
def test_the_more_is_remembered_the_less_it_costs(one, other):
    costs = [terms(a_model(), a_demand(prefix_hits={"one": each})).cost for each in (one, other)]
    assert (costs[0] > costs[1]) == (one < other)


def test_no_more_is_remembered_than_the_prompt_has():
    assert terms(a_model(), a_demand(prefix_hits={"one": 9999})).prefill == 0


def test_a_model_that_has_to_be_loaded_remembers_nothing():
    demand = a_demand(prefix_hits={"one": 400})
    for residency in (Residency.INSTALLED, Residency.LOADING):
        assert terms(a_model(residency=residency), demand).prefill == pytest.approx(0.5)


@given(seconds, seconds)
def test_a_slot_that_is_busy_longer_costs_more(one, other):
    found = [terms(a_model(busy_until=(NOW + each,))) for each in (one, other)]
    assert (found[0].cost <= found[1].cost) or one > other
    assert found[0].drain == pytest.approx(max(one, 0.001))


@given(seconds, seconds)
def test_a_longer_load_costs_more(one, other):
    models = [a_model(residency=Residency.INSTALLED, load_seconds=each) for each in (one, other)]
    costs = [terms(model).cost for model in models]
    assert (costs[0] <= costs[1]) or one > other


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_backend_that_fails_more_often_costs_more(one, other):
    costs = [terms(a_model(), failure_ratio=each).cost for each in (one, other)]
    assert (costs[0] <= costs[1]) or one > other


def test_a_backend_that_always_fails_costs_a_finite_sum():
    assert terms(a_model(), failure_ratio=1.0).cost < 100


def test_who_is_just_back_costs_the_surcharge_more():
    assert terms(a_model(), surcharge_seconds=4.0).risk == pytest.approx(4)


def test_writing_is_slower_beside_other_requests():
    busy = a_model(slot_count=2, busy_until=(NOW + 60,))
    assert terms(busy).decode == pytest.approx(100 / 30)


def test_whoever_holds_the_slot_waited_for_slows_nobody_down():
    assert terms(a_model(busy_until=(NOW + 5,))).decode == pytest.approx(100 / 50)


def evicting(**other):
    models = {"chat": a_model(residency=Residency.INSTALLED), "other": a_model(**other)}
    snapshot = a_fleet(a_backend("one", models, room=Room(model_limit=1)))
    return assess(snapshot, [], a_demand(), {}).candidates["one"]


def test_evicting_costs_the_unloading_and_what_others_will_miss():
    found = evicting(used_at=NOW - 120)
    assert found.evicted == ("other",)
    assert found.terms.load == pytest.approx(2 + 10)
    assert found.terms.risk == pytest.approx(10 / 2.718281828)


def test_whoever_was_not_used_for_long_is_hardly_missed():
    assert evicting(used_at=NOW - 3600).terms.risk == pytest.approx(0, abs=1e-6)


def test_a_busy_model_makes_room_when_its_requests_have_ended():
    found = evicting(busy_until=(NOW + 7,))
    assert found.terms.drain == pytest.approx(7)
    assert found.terms.decode == pytest.approx(100 / 50)
