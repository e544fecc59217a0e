import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.balancer.core.decay import DecayedMean
from services.balancer.core.work import Speed, UnitCost, Work, load_seconds, unit_costs


def speed_of(text_seconds, samples=20):
    speed = Speed()
    for _ in range(samples):
        speed = speed.with_texts(text_seconds, 0.0)
    return speed


def test_a_backend_never_seen_is_taken_for_average():
    costs = unit_costs(
        {"fast": speed_of(0.01), "slow": speed_of(0.03), "new": Speed()}, DecayedMean(), 0.0
    )
    assert costs["new"].text_seconds == pytest.approx((0.01 * 0.03) ** 0.5)
    assert costs["fast"].text_seconds < costs["new"].text_seconds < costs["slow"].text_seconds


def test_one_slow_reply_is_no_proof_but_several_are():
    def excess(*samples):
        speeds = {f"b{index}": speed_of(0.01) for index in range(7)}
        speeds["slow"] = Speed()
        for sample in samples:
            speeds["slow"] = speeds["slow"].with_texts(sample, 0.0)
        costs = unit_costs(speeds, DecayedMean(), 0.0)
        return costs["slow"].text_seconds / costs["b0"].text_seconds

    assert excess(0.1) < excess(0.1, 0.1) < excess(0.1, 0.1, 0.1)
    assert excess(*[0.1] * 20) > 5
    assert excess(*[0.03] * 20) > 2
    for good_samples in range(20):
        assert excess(0.1, *[0.01] * good_samples) < 1.4


def test_noise_leaves_equal_backends_nearly_equal():
    rng = random.Random(3)
    speeds = {f"b{index}": Speed() for index in range(8)}
    for _ in range(100):
        for name, speed in speeds.items():
            speeds[name] = speed.with_texts(0.01 * rng.lognormvariate(0, 0.5), 0.0)
    seconds = [cost.text_seconds for cost in unit_costs(speeds, DecayedMean(), 0.0).values()]
    assert max(seconds) / min(seconds) < 1.5


def test_a_fleet_never_used_has_equal_costs():
    costs = unit_costs({"a": Speed(), "b": Speed()}, DecayedMean(), 5.0)
    assert costs["a"] == costs["b"]
    assert costs["a"].generation_seconds > 0
    assert costs["a"].text_seconds > 0


def test_quick_embeddings_do_not_make_a_backend_look_quick_at_generating():
    costs = unit_costs({"a": speed_of(0.0001), "b": Speed()}, DecayedMean(), 0.0)
    assert costs["a"].generation_seconds == costs["b"].generation_seconds


def test_a_generation_costs_its_prompt_and_the_fleets_usual_answer():
    speed = Speed()
    for _ in range(1000):
        speed = speed.with_generation(prompt_seconds=0.5, token_seconds=0.01, now=0.0)
    answers = DecayedMean()
    for _ in range(1000):
        answers = answers.add(200.0, 0.0)
    costs = unit_costs({"a": speed}, answers, 0.0)
    assert costs["a"].generation_seconds == pytest.approx(0.5 + 200 * 0.01, rel=0.02)


def test_one_failure_hardly_matters_and_constant_failure_does():
    def ratio(failures, successes):
        speed = Speed()
        for failed in [False] * successes + [True] * failures:
            speed = speed.with_outcome(failed=failed, now=0.0)
        return unit_costs({"a": speed}, DecayedMean(), 0.0)["a"].failure_ratio

    assert ratio(0, 5) == 0
    assert ratio(1, 0) < 0.2
    assert ratio(1, 20) < 0.05
    assert ratio(20, 0) >= 0.8


@given(st.integers(0, 100), st.integers(0, 1000), st.floats(0, 1))
def test_more_work_or_more_failures_never_lower_the_load(generations, texts, ratio):
    work = Work(generation_count=generations, text_count=texts)
    cost = UnitCost(generation_seconds=2.0, text_seconds=0.1, failure_ratio=ratio)
    seconds = load_seconds(work, cost)
    assert seconds >= generations * 2.0 + texts * 0.1
    assert load_seconds(work + Work(text_count=1), cost) > seconds


@given(st.integers(0, 100), st.integers(0, 100))
def test_taking_work_off_undoes_putting_it_on(first, second):
    before = Work(generation_count=first, text_count=second)
    extra = Work(generation_count=2, text_count=3)
    assert before + extra - extra == before
