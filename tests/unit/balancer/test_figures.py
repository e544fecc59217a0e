import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.balancer.core.figures import Figure

FIVE_TIMES = math.log(5.0)
BACKENDS = st.sampled_from(["a", "b", "c"])
MODELS = st.sampled_from(["m", "n"])
SAMPLES = st.lists(
    st.tuples(BACKENDS, MODELS, st.floats(-5.0, 5.0), st.floats(0.01, 1.0), st.floats(0.0, 400.0)),
    max_size=60,
)


def learn(samples, prior=0.0):
    figure, now = Figure(lambda _: prior), 0.0
    for backend_id, model, sample, weight, pause in samples:
        now += pause
        figure.note(backend_id, model, sample, now, weight=weight)
    return figure, now


def fleet(*, slow_samples=0, slow_value=FIVE_TIMES):
    figure = Figure(lambda _: 0.0)
    for _ in range(20):
        for index in range(7):
            figure.note(f"b{index}", "m", 0.0, 0.0)
    for _ in range(slow_samples):
        figure.note("slow", "m", slow_value, 0.0)
    return figure


@given(SAMPLES, st.floats(-5.0, 5.0), st.floats(0.0, 1e7))
def test_what_is_expected_lies_near_what_was_seen_or_supposed(samples, prior, later):
    figure, now = learn(samples, prior)
    values = [sample for _, _, sample, _, _ in samples] + [prior]
    spread = max(values) - min(values)
    for backend_id in ("a", "b", "c", "never seen"):
        for model in ("m", "n", "never run"):
            expected = figure.expected(backend_id, model, now + later)
            assert min(values) - 2 * spread - 1e-9 <= expected <= max(values) + 2 * spread + 1e-9


@given(SAMPLES)
def test_what_is_expected_does_not_depend_on_who_asked_before(samples):
    asked, now = Figure(lambda _: 0.0), 0.0
    for backend_id, model, sample, weight, pause in samples:
        now += pause
        asked.note(backend_id, model, sample, now, weight=weight)
        asked.expected("a", "m", now)
        asked.expected("c", "n", now + 1.0)
    quiet, _ = learn(samples)
    for backend_id in ("a", "b", "c"):
        assert asked.expected(backend_id, "m", now) == quiet.expected(backend_id, "m", now)


@given(SAMPLES, BACKENDS, MODELS, st.floats(-5.0, 5.0), st.floats(0.0, 5.0))
def test_a_slower_sample_never_makes_a_backend_look_quicker(samples, backend, model, value, more):
    quicker, now = learn(samples)
    slower, _ = learn(samples)
    quicker.note(backend, model, value, now)
    slower.note(backend, model, value + more, now)
    assert slower.expected(backend, model, now) >= quicker.expected(backend, model, now) - 1e-9


@given(st.floats(0.0, 10.0))
def test_one_slow_sample_is_no_proof_however_slow(excess):
    figure = fleet(slow_samples=1, slow_value=excess)
    assert figure.expected("slow", "m", 0.0) <= 0.2 * excess
    for _ in range(10):
        figure.note("slow", "m", 0.0, 0.0)
        assert figure.expected("slow", "m", 0.0) <= 0.2 * excess


def test_slowness_is_believed_within_eight_samples():
    expected = [fleet(slow_samples=count).expected("slow", "m", 0.0) for count in range(9)]
    assert expected == sorted(expected)
    assert math.exp(expected[2]) < 2.0
    assert math.exp(expected[8]) > 4.0


def test_one_stall_of_a_backend_known_well_changes_nothing():
    figure = fleet()
    before = figure.expected("b0", "m", 0.0)
    figure.note("b0", "m", math.log(100.0), 0.0)
    assert figure.expected("b0", "m", 0.0) == pytest.approx(before, abs=1e-6)


@pytest.mark.parametrize("change", [FIVE_TIMES, -FIVE_TIMES])
def test_a_change_is_followed_within_twenty_samples(change):
    figure = fleet()
    for _ in range(20):
        figure.note("b0", "m", change, 0.0)
    assert figure.expected("b0", "m", 0.0) == pytest.approx(change, abs=0.2)


def test_noise_leaves_equal_backends_nearly_equal():
    rng, figure = random.Random(3), Figure(lambda _: 0.0)
    for _ in range(100):
        for index in range(8):
            figure.note(f"b{index}", "m", rng.gauss(0.0, 0.3), 0.0)
    expected = [figure.expected(f"b{index}", "m", 0.0) for index in range(8)]
    assert max(expected) - min(expected) < 0.5


def test_a_new_backend_is_taken_for_an_average_one():
    figure = Figure(lambda _: 0.0)
    for _ in range(20):
        figure.note("fast", "m", 1.0, 0.0)
        figure.note("slow", "m", 3.0, 0.0)
    fast, new, slow = (figure.expected(name, "m", 0.0) for name in ("fast", "new", "slow"))
    assert fast < new < slow
    assert new == pytest.approx(2.0, abs=0.1)


def test_a_model_new_to_a_backend_is_judged_by_the_backends_other_models():
    figure = Figure(lambda _: 0.0)
    for _ in range(20):
        figure.note("fast", "m", 0.0, 0.0)
        figure.note("fast", "n", 1.0, 0.0)
    for _ in range(20):
        figure.note("slow", "m", FIVE_TIMES, 0.0)
    assert figure.expected("slow", "n", 0.0) == pytest.approx(1.0 + FIVE_TIMES, abs=0.35)
    assert figure.expected("fast", "n", 0.0) == pytest.approx(1.0, abs=0.1)


def test_a_model_nobody_has_run_is_judged_by_other_models_beside_their_priors():
    figure = Figure({"m": 1.0, "large": 2.0}.__getitem__)
    assert figure.expected("a", "large", 0.0) == 2.0
    for _ in range(20):
        figure.note("a", "m", 2.5, 0.0)
    assert figure.expected("a", "large", 0.0) == pytest.approx(3.5, abs=0.1)


def test_a_slow_backend_unseen_for_long_gets_another_chance_but_is_not_taken_for_average():
    figure = fleet(slow_samples=20)
    expected = [figure.expected("slow", "m", now) for now in (0.0, 300.0, 900.0, 1e7)]
    assert expected == sorted(expected, reverse=True)
    assert math.exp(expected[0]) > 4.5
    assert 1.3 < math.exp(expected[-1]) < 2.5


def test_a_forgotten_backend_is_like_one_never_seen():
    figure = fleet(slow_samples=20)
    figure.forget("slow")
    never_seen = fleet().expected("new", "m", 0.0)
    assert figure.expected("slow", "m", 0.0) == pytest.approx(never_seen, abs=1e-9)


def test_what_is_remembered_is_bounded():
    figure = Figure(lambda _: 0.0)
    figure.note("b", "m", 0.0, 0.0)
    cell = figure._cells["b", "m"]
    figure._cells.update({("b", str(index)): cell for index in range(8191)})
    figure.note("b", "new", 1.0, 1.0)
    assert len(figure._cells) == 8192
    assert ("b", "m") not in figure._cells
    assert ("b", "new") in figure._cells
