"""Models are loaded a second time for all who wait for them, and not one over the other."""

from hypothesis import given
from hypothesis import strategies as st

from services.balancer.core.copies import Held, best_copy
from services.balancer.core.cost import Bench
from services.balancer.core.interest import Interest
from services.balancer.core.plan import Outcome, plan
from services.balancer.core.snapshot import Residency, Room
from tests.kit.fleets import NOW, a_backend, a_demand, a_fleet, a_model, ties

SINGLE = Room(model_limit=1)


def cold(speed=1.0, **fields):
    return a_model(speed, residency=Residency.INSTALLED, **fields)


def busy(name, **fields):
    """A backend that works on a chat for another second."""
    return a_backend(name, {"chat": a_model(busy_until=(NOW + 1,), used_at=NOW)}, **fields)


def line(count, model_key="chat", first=0):
    return [a_demand(first + each, model_key=model_key) for each in range(count)]


def loads(snapshot, queue):
    made = plan(snapshot, queue, ties(snapshot), quick=False)
    return [(each.backend_id, each.model_key) for each in made.loads]


def test_a_copy_is_loaded_for_those_who_wait_together_longer_than_it_takes():
    snapshot = a_fleet(busy("busy"), a_backend("cold", {"chat": cold()}))
    made = plan(snapshot, line(3), ties(snapshot), quick=False)
    # None of them would wait for ten seconds of loading.
    assert {(each.backend_id, each.outcome) for each in made.placements} == {("busy", Outcome.HELD)}
    assert [each.backend_id for each in made.loads] == ["cold"]
    assert loads(snapshot, line(2)) == []


def test_no_second_copy_is_loaded_while_one_is_on_its_way():
    loading = a_model(residency=Residency.LOADING, ready_at=NOW + 60)
    coming = a_backend("coming", {"chat": loading}, loading_key="chat", loading_until=NOW + 60)
    snapshot = a_fleet(busy("busy"), coming, a_backend("cold", {"chat": cold()}))
    assert loads(snapshot, line(3)) == []


def test_a_copy_is_loaded_where_it_will_work_fastest():
    places = [a_backend(str(speed), {"chat": cold(speed)}) for speed in (0.3, 1.0, 0.6)]
    assert loads(a_fleet(busy("busy"), *places), line(4)) == [("1.0", "chat")]


def test_a_copy_on_a_backend_that_is_too_slow_to_be_of_use_is_not_loaded():
    assert loads(a_fleet(busy("busy"), a_backend("slow", {"chat": cold(0.05)})), line(3)) == []


def with_other(used_at, *others):
    models = {"other": a_model(used_at=used_at), "chat": cold()}
    return a_fleet(busy("busy"), a_backend("one", models, room=SINGLE), *others)


def test_the_only_copy_of_what_was_used_lately_does_not_go_for_a_second_one():
    assert loads(with_other(NOW - 30), line(5)) == []
    assert loads(with_other(NOW - 300), line(5)) == [("one", "chat")]


def test_one_of_several_copies_goes_unless_more_wait_for_it():
    spare = a_backend("spare", {"other": a_model(busy_until=(NOW + 1,))})
    snapshot = with_other(NOW - 30, spare)
    assert loads(snapshot, line(6)) == [("one", "chat")]
    assert ("one", "chat") not in loads(snapshot, [*line(6), *line(6, "other", first=6)])


_SECONDS = st.floats(0.0, 500.0)
_SPEEDS = st.tuples(*(st.floats(0.1, 2.0) for _ in range(3)))


@given(chat_seconds=_SECONDS, other_seconds=_SECONDS, speeds=_SPEEDS, load=st.floats(0.5, 60.0))
def test_no_two_models_take_each_others_place_in_turns(chat_seconds, other_seconds, speeds, load):
    """Whoever gains by the place of a copy of the other has nothing to fear from the other then."""

    def best(model_key, *keys):
        """Where a model has a copy loaded, if each backend has one of the two in memory."""
        views = []
        for name, key, speed in zip("abc", keys, speeds, strict=True):
            warm = a_model(speed, used_at=NOW, load_seconds=load)
            absent = cold(speed, load_seconds=load)
            models = {each: warm if each == key else absent for each in ("chat", "other")}
            views.append(a_backend(name, models, room=SINGLE))
        snapshot = a_fleet(*views)
        interest = Interest({"chat", "other"}, snapshot)
        benches = [Bench(view, snapshot, interest) for view in views]
        waiting = {
            key: Held(
                a_demand(model_key=key), [bench.lane(key) for bench in benches], seconds=seconds
            )
            for key, seconds in (("chat", chat_seconds), ("other", other_seconds))
        }
        found = best_copy(waiting[model_key], waiting.values(), interest, snapshot)
        return None if found is None else found.lane.bench.view.id

    if best("chat", "chat", "other", "other") == "c":
        assert best("other", "chat", "other", "chat") != "c"
