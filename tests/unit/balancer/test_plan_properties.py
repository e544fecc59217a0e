"""What holds of every plan, for random fleets and queues."""

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from services.balancer.core.cost import Candidate
from services.balancer.core.eligibility import kind_of
from services.balancer.core.openings import earliest_first_token
from services.balancer.core.plan import Outcome, Reason, assess, plan
from services.balancer.core.snapshot import Policy, Residency
from tests.kit.fleets import NOW, a_demand, fleets, queues, ties

PLENTY = settings(max_examples=100)


def models_of(snapshot):
    return {
        (view.id, key): model
        for view in snapshot.backends
        for key, model in (view.models or {}).items()
    }


def dispatched(made):
    return [each for each in made.placements if each.outcome is Outcome.DISPATCHED]


def targets(made):
    return [(each.demand.id, each.backend_id) for each in dispatched(made)]


def fits(view, demand):
    model = (view.models or {}).get(demand.model_key)
    return (
        not view.drained
        and model is not None
        and demand.digest in (None, model.digest)
        and model.can(demand.kind.capability)
    )


def after_dispatching(snapshot, made):
    """The fleet once the plan's requests have begun."""
    begun = Counter((each.backend_id, each.demand.model_key) for each in dispatched(made))
    backends = []
    for view in snapshot.backends:
        models = view.models and {
            key: replace(model, busy_until=model.busy_until + (NOW + 5,) * begun[view.id, key])
            for key, model in view.models.items()
        }
        backends.append(replace(view, models=models))
    return replace(snapshot, backends=tuple(backends))


@PLENTY
@given(fleets(), queues(), st.booleans())
def test_no_model_is_given_more_than_it_has_free_slots(snapshot, queue, quick):
    made = plan(snapshot, queue, ties(snapshot), quick=quick)
    models = models_of(snapshot)
    given_out = Counter((each.backend_id, each.demand.model_key) for each in dispatched(made))
    for place, count in given_out.items():
        if place in models:
            assert count + len(models[place].busy_until) <= models[place].slot_count


@PLENTY
@given(fleets(), queues(), st.booleans())
def test_requests_go_only_where_they_can_be_served(snapshot, queue, quick):
    views = {view.id: view for view in snapshot.backends}
    for each in dispatched(plan(snapshot, queue, ties(snapshot), quick=quick)):
        view, demand = views[each.backend_id], each.demand
        assert not view.drained
        assert view.id not in demand.tried
        assert view.models is None or fits(view, demand)
        if each.reason is not Reason.ROUND_ROBIN_FALLBACK:
            model = view.models[demand.model_key]
            assert view.takes_requests
            assert model.residency is Residency.WARM
            assert model.holds(demand.context_token_count)


@PLENTY
@given(fleets(), queues(), st.booleans())
def test_a_backend_that_is_out_gets_nothing_while_another_with_the_model_is_not(
    snapshot, queue, quick
):
    views = {view.id: view for view in snapshot.backends}
    for each in dispatched(plan(snapshot, queue, ties(snapshot), quick=quick)):
        view, demand = views[each.backend_id], each.demand
        holders = [other for other in snapshot.backends if fits(other, demand)]
        if not view.takes_requests or view.models is None:
            assert not any(other.takes_requests for other in holders)
        if view.models is None:
            assert all(other.id in demand.tried for other in holders)


@PLENTY
@given(fleets(), queues())
def test_loads_evict_nobody_who_is_busy_pinned_or_loading(snapshot, queue):
    models = models_of(snapshot)
    made = plan(snapshot, queue, ties(snapshot), quick=False)
    for order in made.loads:
        for key in order.evicted_keys:
            evicted = models[order.backend_id, key]
            assert not evicted.busy_until
            assert evicted.residency is not Residency.LOADING
            # A model that must stay may still be loaded anew with a larger context.
            assert key == order.model_key or not evicted.pinned
            assert not any(
                (each.backend_id, each.demand.model_key) == (order.backend_id, key)
                for each in dispatched(made)
            )


@PLENTY
@given(fleets(), queues())
def test_a_backend_loads_one_model_at_a_time_and_what_it_loads_fits(snapshot, queue):
    views = {view.id: view for view in snapshot.backends}
    orders = plan(snapshot, queue, ties(snapshot), quick=False).loads
    assert len({order.backend_id for order in orders}) == len(orders)
    for order in orders:
        view = views[order.backend_id]
        assert view.loading_key is None
        assert view.takes_requests
        assert not view.drained
        loaded = view.models[order.model_key]
        assert loaded.load_barred_until <= NOW
        staying = [
            model.size_bytes
            for key, model in view.models.items()
            if key not in (*order.evicted_keys, order.model_key)
            and model.residency in (Residency.WARM, Residency.LOADING)
        ]
        assert view.room.fits((loaded.size_bytes, *staying))


@PLENTY
@given(fleets(), queues())
def test_each_request_looked_at_gets_exactly_one_placement_in_order(snapshot, queue):
    made = plan(snapshot, queue, ties(snapshot), quick=False)
    looked_at = queue[: snapshot.policy.walk_limit]
    assert [each.demand for each in made.placements] == looked_at
    assert [each.position for each in made.placements] == list(range(len(looked_at)))
    for each in made.placements:
        if each.outcome in (Outcome.DISPATCHED, Outcome.LOADING):
            assert each.backend_id is not None


@PLENTY
@given(fleets(), queues(), st.booleans())
def test_equal_arguments_give_equal_plans(snapshot, queue, quick):
    made = [plan(snapshot, list(queue), ties(snapshot), quick=quick) for _ in range(2)]
    assert made[0] == made[1]


@PLENTY
@given(fleets(), queues())
def test_an_assessment_says_what_the_plan_does(snapshot, queue):
    snapshot = replace(snapshot, policy=Policy(walk_limit=64))
    *before, demand = [*queue, a_demand(99)]
    assessed = assess(snapshot, before, demand, ties(snapshot))
    made = plan(snapshot, [*before, demand], ties(snapshot), quick=False)
    assert assessed.placement == made.placements[-1]
    if assessed.placement.terms is not None:
        chosen = assessed.candidates[assessed.placement.backend_id]
        assert isinstance(chosen, Candidate)
        assert chosen.terms == assessed.placement.terms


@PLENTY
@given(fleets(), st.integers(0, 4), queues())
def test_a_backend_going_out_bars_no_other_backend(snapshot, index, queue):
    views = list(snapshot.backends)
    out = views[index % len(views)]
    views[index % len(views)] = replace(out, takes_requests=False)
    for demand in queue:
        before = assess(snapshot, [], demand, {}).candidates
        after = assess(replace(snapshot, backends=tuple(views)), [], demand, {}).candidates
        for name in before.keys() - {out.id}:
            assert isinstance(before[name], str) == isinstance(after[name], str)


@PLENTY
@given(fleets(), queues())
def test_a_quick_plan_loads_nothing_and_leaves_no_slot_that_whom_it_skipped_could_have(
    snapshot, queue
):
    snapshot = replace(snapshot, policy=Policy(walk_limit=64))
    quick = plan(snapshot, queue, ties(snapshot), quick=True)
    assert quick.loads == ()
    looked_at = {each.demand.id for each in quick.placements}
    begun = {number for number, _ in targets(quick)}
    rest = [demand for demand in queue if demand.id not in begun]
    left = plan(after_dispatching(snapshot, quick), rest, ties(snapshot), quick=False)
    assert {number for number, _ in targets(left)} <= looked_at


@PLENTY
@given(fleets(), queues())
def test_a_quick_plan_sends_those_it_looks_at_where_a_full_one_would(snapshot, queue):
    snapshot = replace(snapshot, policy=Policy(walk_limit=64))
    looked_at = [
        each.demand for each in plan(snapshot, queue, ties(snapshot), quick=True).placements
    ]
    quick = plan(snapshot, looked_at, ties(snapshot), quick=True)
    if len(quick.placements) == len(looked_at):
        full = plan(snapshot, looked_at, ties(snapshot), quick=False)
        assert targets(quick) == targets(full)


@PLENTY
@given(fleets(), queues())
def test_a_quick_plan_gives_nothing_to_models_left_to_fall_idle(snapshot, queue):
    full = plan(snapshot, queue, ties(snapshot), quick=False)
    snapshot = replace(snapshot, yielding=full.yielding)
    quick = plan(snapshot, queue, ties(snapshot), quick=True)
    assert quick.yielding == full.yielding
    for each in dispatched(quick):
        assert (each.backend_id, each.demand.model_key) not in full.yielding


@PLENTY
@given(fleets(), queues(), queues(), st.integers(0, 6))
def test_nobody_left_out_of_a_plan_would_be_served_sooner_than_is_said(
    snapshot, front, back, walk_limit
):
    queue = front + [replace(each, id=100 + each.id) for each in back]
    short = replace(snapshot, policy=Policy(walk_limit=walk_limit))
    full = replace(snapshot, policy=Policy(walk_limit=64))
    openings = plan(short, queue, ties(snapshot), quick=False).openings
    for each in plan(full, queue, ties(snapshot), quick=False).placements[walk_limit:]:
        found = openings.get(kind_of(each.demand))
        if found is None or each.terms is None:
            continue
        bound = earliest_first_token(each.demand, found, NOW)
        assert bound is not None
        assert bound <= each.terms.first_token + 1e-6
