import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.balancer.core.demand import Kind
from services.balancer.core.lengths import OutputLengths

ANSWERS = st.lists(
    st.tuples(
        st.sampled_from(["m", "n"]),
        st.sampled_from([Kind.CHAT, Kind.GENERATE]),
        st.sampled_from(["s", "t"]),
        st.integers(0, 10**7),
    ),
    max_size=60,
)
CAPS = st.one_of(st.none(), st.integers(1, 10**6))


def learn(answers):
    lengths = OutputLengths()
    for model, kind, tenant, count in answers:
        lengths.note(model, kind, tenant, count, 0.0)
    return lengths


def chats(*counts, tenant="t", model="m", repeat=1):
    return learn([(model, Kind.CHAT, tenant, count) for count in counts * repeat])


def median(lengths, *, model="m", kind=Kind.CHAT, tenant="t", cap=None, now=0.0):
    return lengths.median(model, kind, tenant, cap=cap, now=now)


@given(ANSWERS, CAPS, st.integers(0, 10**7), st.floats(0.0, 1e9))
def test_predictions_are_positive_finite_and_within_the_cap(answers, cap, produced, now):
    lengths = learn(answers)
    for tenant in ("t", "never seen"):
        middle = lengths.median("m", Kind.CHAT, tenant, cap=cap, now=now)
        left = lengths.remaining("m", Kind.CHAT, tenant, produced=produced, cap=cap, now=now)
        assert 1.0 <= middle <= (cap or 2**18)
        assert 1.0 <= left <= max(1.0, (cap or math.inf) - produced)


@given(ANSWERS, CAPS, st.integers(0, 200_000), st.integers(0, 200_000))
def test_the_longer_an_answer_is_the_longer_it_is_expected_to_become(answers, cap, some, more):
    lengths = learn(answers)

    def total(produced):
        return produced + lengths.remaining(
            "m", Kind.CHAT, "t", produced=produced, cap=cap, now=0.0
        )

    assert total(some + more) >= total(some) * (1 - 1e-9)


@given(ANSWERS)
def test_the_same_history_gives_the_same_predictions(answers):
    once, again = learn(answers), OutputLengths()
    for model, kind, tenant, count in answers:
        median(again)
        again.note(model, kind, tenant, count, 0.0)
    assert median(once) == median(again)


def test_without_answers_the_prior_holds():
    lengths = OutputLengths()
    assert median(lengths) == pytest.approx(130, rel=0.02)
    assert median(lengths, cap=50) == 50


@pytest.mark.parametrize("typical", [3, 40, 700, 9000])
def test_lengths_are_learned(typical):
    rng = random.Random(1)
    lengths = chats(*(round(typical * rng.lognormvariate(0.0, 0.5)) for _ in range(200)))
    assert median(lengths) == pytest.approx(typical, rel=0.3)


def test_a_change_of_habits_is_followed():
    lengths = chats(50, repeat=1000)
    for _ in range(60):
        lengths.note("m", Kind.CHAT, "t", 900, 0.0)
    assert median(lengths) == pytest.approx(900, rel=0.3)


def test_what_is_unknown_of_a_tenant_is_taken_from_the_model_then_from_the_kind():
    lengths = learn(
        [("m", Kind.CHAT, "t", 1000), ("n", Kind.CHAT, "t", 20), ("n", Kind.GENERATE, "t", 5)] * 100
    )
    assert median(lengths, tenant="never seen") == pytest.approx(1000, rel=0.3)
    assert 15 < median(lengths, model="never run") < 1200
    assert median(lengths, kind=Kind.GENERATE, model="never run") == pytest.approx(5, rel=0.3)
    assert median(lengths, kind=Kind.EMBED) == pytest.approx(130, rel=0.02)


def test_a_tenants_own_habits_outweigh_those_of_others():
    lengths = learn([("m", Kind.CHAT, "talker", 2000)] * 200 + [("m", Kind.CHAT, "t", 30)] * 50)
    assert median(lengths) == pytest.approx(30, rel=0.3)
    assert median(lengths, tenant="talker") == pytest.approx(2000, rel=0.3)


def test_one_answer_does_not_make_a_habit():
    lengths = chats(100, repeat=100, tenant="others")
    lengths.note("m", Kind.CHAT, "t", 8000, 0.0)
    assert median(lengths) < 150


def test_habits_of_long_ago_give_way_to_those_of_the_model():
    lengths = learn([("m", Kind.CHAT, "t", 2000)] * 50)
    for _ in range(200):
        lengths.note("m", Kind.CHAT, "others", 30, 60 * 86_400.0)
    assert median(lengths, now=60.0) == pytest.approx(2000, rel=0.3)
    assert median(lengths, now=60 * 86_400.0) == pytest.approx(30, rel=0.4)


def test_an_answer_that_outruns_all_others_is_expected_to_go_on():
    lengths = chats(*range(80, 200), repeat=3)

    def remaining(produced):
        return lengths.remaining("m", Kind.CHAT, "t", produced=produced, cap=None, now=0.0)

    assert remaining(0) == pytest.approx(150, rel=0.3)
    assert remaining(150) < 100
    assert remaining(2000) > remaining(500) > remaining(150)


def test_what_remains_is_the_mean_of_what_is_cut_off_by_the_cap():
    lengths = chats(10, 1000, repeat=100)

    def remaining(cap):
        return lengths.remaining("m", Kind.CHAT, "t", produced=0, cap=cap, now=0.0)

    assert remaining(None) == pytest.approx(505, rel=0.2)
    assert remaining(100) == pytest.approx(55, rel=0.2)


def test_the_tenants_used_last_are_remembered():
    lengths = OutputLengths()
    for index in range(1000):
        lengths.note("m", Kind.CHAT, f"t{index}", 10, 0.0)
    median(lengths, tenant="t0")
    lengths.note("m", Kind.CHAT, "one more", 10, 0.0)
    kept = {tenant for _, _, tenant in lengths._tenants}
    assert len(kept) == 1000
    assert {"t0", "one more"} <= kept
    assert "t1" not in kept


def test_counts_stay_finite_over_millions_of_answers():
    lengths = chats(10, repeat=30_000)
    for _ in range(30):
        lengths.note("m", Kind.CHAT, "t", 300, 0.0)
    assert 8 < median(lengths) < 310
    histogram = lengths._tenants["m", Kind.CHAT, "t"]
    assert histogram._increment <= 1e100
    assert histogram._total / histogram._increment == pytest.approx(50, rel=0.05)
