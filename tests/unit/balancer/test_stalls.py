import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.balancer.core.stalls import (
    Cure,
    CureAction,
    CureEvent,
    CureStep,
    action_of,
    after_event,
    expires_at,
)

STEPS = st.lists(st.tuples(st.sampled_from(CureEvent), st.floats(0, 40)), max_size=40)


def begin():
    return Cure(step=CureStep.SUSPECT, since=0.0)


def test_a_lost_slot_is_cured_by_unloading_and_loading_again():
    cure, actions = begin(), []
    for now, event in enumerate(
        [
            CureEvent.PROBE_TIMED_OUT,
            CureEvent.UNLOAD_ASKED,
            CureEvent.GONE,
            CureEvent.LOADED,
        ]
    ):
        actions.append(action_of(cure))
        assert action_of(cure) is not CureAction.NOTHING
        cure = after_event(cure, event, float(now))
    assert actions == [
        CureAction.PROBE,
        CureAction.UNLOAD,
        CureAction.AWAIT_GONE,
        CureAction.LOAD,
    ]
    assert cure == Cure(step=CureStep.CURED, since=3.0)
    assert action_of(cure) is CureAction.NOTHING


def test_a_probe_that_is_answered_clears_the_suspicion():
    cure = after_event(begin(), CureEvent.PROBE_ANSWERED, 1.0)
    assert cure.step is CureStep.CLEARED
    assert action_of(cure) is CureAction.NOTHING


def test_a_model_that_cannot_be_loaded_again_has_lost_its_leak_all_the_same():
    cure = after_event(Cure(step=CureStep.RELOADING, since=0.0), CureEvent.LOAD_FAILED, 1.0)
    assert cure.step is CureStep.CURED


@pytest.mark.parametrize(
    ("step", "seconds", "then"),
    [
        (CureStep.SUSPECT, 10.0, CureStep.LEAKED),
        (CureStep.LEAKED, 30.0, CureStep.HUNG),
        (CureStep.UNLOADING, 30.0, CureStep.HUNG),
        (CureStep.RELOADING, 300.0, CureStep.HUNG),
    ],
)
def test_a_step_that_takes_too_long_leads_on(step, seconds, then):
    cure = Cure(step=step, since=5.0)
    assert expires_at(cure) == 5.0 + seconds
    assert after_event(cure, CureEvent.TIME_PASSED, 4.9 + seconds) is cure
    assert after_event(cure, CureEvent.TIME_PASSED, 5.0 + seconds).step is then


def test_what_hangs_is_helped_by_a_restart_and_by_nothing_else():
    hung = Cure(step=CureStep.HUNG, since=0.0)
    assert expires_at(hung) is None
    for event in CureEvent:
        step = after_event(hung, event, 1e6).step
        assert step is (CureStep.RELOADING if event is CureEvent.GONE else CureStep.HUNG)


@given(STEPS)
def test_events_that_mean_nothing_to_a_step_change_nothing_and_the_end_is_final(events):
    cure, now = begin(), 0.0
    for event, pause in events:
        now += pause
        before, cure = cure, after_event(cure, event, now)
        assert cure is before or cure.since == now
        if action_of(before) is CureAction.NOTHING:
            assert cure is before


@given(STEPS)
def test_every_cure_ends_or_hangs_within_its_limits_however_little_happens(events):
    cure, now = begin(), 0.0
    for event, pause in events:
        now += pause
        cure = after_event(cure, event, now)
    for _ in range(4):
        limit = expires_at(cure)
        if limit is None:
            break
        now = max(now, limit)
        cure = after_event(cure, CureEvent.TIME_PASSED, now)
    assert action_of(cure) is CureAction.NOTHING or cure.step is CureStep.HUNG
