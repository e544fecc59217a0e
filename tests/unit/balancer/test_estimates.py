import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.balancer.core.estimates import Estimates

DURATIONS = st.one_of(
    st.floats(1e-9, 1e9), st.sampled_from([0.0, -1.0, math.nan, math.inf, -math.inf])
)
COUNTS = st.integers(-5, 10**7)
NAMES = st.sampled_from(["a", "b"])
NOTES = st.lists(
    st.one_of(
        st.tuples(
            st.just("generation"),
            NAMES,
            NAMES,
            COUNTS,
            COUNTS,
            COUNTS,
            DURATIONS,
            COUNTS,
            DURATIONS,
        ),
        st.tuples(st.just("texts"), NAMES, NAMES, COUNTS, COUNTS, DURATIONS),
        st.tuples(st.just("load"), NAMES, NAMES, DURATIONS, COUNTS),
        st.tuples(st.just("characters"), NAMES, COUNTS, COUNTS),
        st.tuples(st.just("size"), NAMES, st.integers(-1, 10**15)),
    ),
    max_size=40,
)


def answer(
    estimates,
    backend_id="a",
    model="m",
    *,
    now=0.0,
    concurrency=1,
    prompt=1000,
    hit=0,
    read=None,
    prefill=2500.0,
    decode=60.0,
    output=100,
    noise=1.0,
):
    """An answer of a backend that reads all of the prompt but `hit`, or `read` of it."""
    tokens = prompt - hit if read is None else read
    estimates.note_generation(
        backend_id,
        model,
        concurrency=concurrency,
        prompt_token_count=prompt,
        expected_hit_token_count=hit,
        prompt_seconds=(0.005 + tokens / prefill) * noise,
        output_token_count=output,
        output_seconds=output / decode * noise,
        now=now,
    )


def fleet(count=8):
    estimates = Estimates()
    for _ in range(20):
        for index in range(count):
            answer(estimates, f"b{index}")
    return estimates


def note(estimates, entry, now):
    match entry:
        case ("generation", backend, model, concurrency, prompt, hit, seconds, output, generating):
            estimates.note_generation(
                backend,
                model,
                concurrency=concurrency,
                prompt_token_count=prompt,
                expected_hit_token_count=hit,
                prompt_seconds=seconds,
                output_token_count=output,
                output_seconds=generating,
                now=now,
            )
        case ("texts", backend, model, tokens, texts, seconds):
            estimates.note_texts(
                backend, model, token_count=tokens, text_count=texts, seconds=seconds, now=now
            )
        case ("load", backend, model, seconds, size):
            estimates.note_load(backend, model, seconds=seconds, size_bytes=size, now=now)
        case ("characters", model, characters, tokens):
            estimates.note_characters(
                model, character_count=characters, token_count=tokens, now=now
            )
        case ("size", model, size):
            estimates.note_size(model, size)


def figures(estimates, backend, model, now):
    return [
        estimates.prefill_rate(backend, model, now),
        *(estimates.decode_rate(backend, model, level, now) for level in (1, 2, 3, 4, 7)),
        *(estimates.load_seconds(backend, model, size, now) for size in (0, 10**9, 10**12)),
        estimates.text_overhead_seconds(backend, model, now),
        *(float(estimates.token_count(model, count, now)) for count in (0, 100, 10**6)),
    ]


@given(NOTES, st.floats(0.0, 100.0))
def test_figures_are_finite_positive_and_monotone_whatever_servers_report(entries, pause):
    estimates, now = Estimates(), 0.0
    for entry in entries:
        note(estimates, entry, now)
        now += pause
    for backend, model in (("a", "a"), ("b", "a"), ("never seen", "a"), ("a", "never run")):
        found = figures(estimates, backend, model, now)
        assert all(math.isfinite(figure) and figure > 0 for figure in found)
        assert found[1:6] == sorted(found[1:6], reverse=True)
        assert estimates.load_seconds(backend, model, 10**9, now) < found[8]
        assert found[-3:] == sorted(found[-3:])


@given(NOTES)
def test_the_same_history_gives_the_same_figures(entries):
    once, again = Estimates(), Estimates()
    for now, entry in enumerate(entries):
        note(once, entry, float(now))
        figures(once, "a", "b", float(now))
        note(again, entry, float(now))
    assert figures(once, "a", "a", 50.0) == figures(again, "a", "a", 50.0)


def test_without_samples_priors_hold_scaled_by_size():
    estimates = Estimates()
    estimates.note_size("large", 40 * 10**9)
    for rate in (
        lambda model: estimates.prefill_rate("a", model, 0.0),
        lambda model: estimates.decode_rate("a", model, 1, 0.0),
    ):
        assert rate("large") == pytest.approx(rate("unknown") / 8)
    assert estimates.decode_rate("a", "unknown", 1, 0.0) == pytest.approx(60)
    assert estimates.load_seconds("a", "m", 20 * 10**9, 0.0) == pytest.approx(21)


def test_rates_are_learned():
    estimates = Estimates()
    for _ in range(30):
        answer(estimates, prefill=800.0, decode=25.0)
    assert estimates.prefill_rate("a", "m", 0.0) == pytest.approx(800, rel=0.15)
    assert estimates.decode_rate("a", "m", 1, 0.0) == pytest.approx(25, rel=0.1)


def test_a_backend_that_proves_slow_is_believed_within_eight_answers_but_not_at_once():
    estimates = fleet()
    answer(estimates, "slow", prefill=500.0, decode=12.0)
    assert estimates.prefill_rate("slow", "m", 0.0) > 1800
    assert estimates.decode_rate("slow", "m", 1, 0.0) > 42
    for _ in range(7):
        answer(estimates, "slow", prefill=500.0, decode=12.0)
    assert estimates.prefill_rate("slow", "m", 0.0) < 2500 / 3.5
    assert estimates.decode_rate("slow", "m", 1, 0.0) < 60 / 3.5


def test_a_backend_that_becomes_slow_is_followed_within_twenty_answers():
    rng, estimates = random.Random(1), fleet()
    for _ in range(20):
        level = rng.randint(1, 4)
        noise = rng.lognormvariate(0.0, 0.2)
        answer(
            estimates, "b0", prefill=500.0, decode=12 / level**0.6, concurrency=level, noise=noise
        )
    assert estimates.prefill_rate("b0", "m", 0.0) == pytest.approx(500, rel=0.25)
    for level in range(1, 5):
        rate = estimates.decode_rate("b0", "m", level, 0.0)
        assert rate == pytest.approx(12 / level**0.6, rel=0.3)


def test_a_new_backend_draws_no_more_requests_than_an_average_one():
    estimates = Estimates()
    for _ in range(20):
        answer(estimates, "fast", prefill=4000.0, decode=100.0)
        answer(estimates, "slow", prefill=1000.0, decode=25.0)
    assert 1300 < estimates.prefill_rate("new", "m", 0.0) < 3000
    assert 35 < estimates.decode_rate("new", "m", 1, 0.0) < 70


def test_a_model_new_to_a_slow_backend_is_expected_to_be_slow_there():
    estimates = fleet(2)
    for _ in range(20):
        answer(estimates, "b0", "n", prefill=1000.0, decode=20.0)
        answer(estimates, "slow", "m", prefill=500.0, decode=12.0)
    assert estimates.decode_rate("slow", "n", 1, 0.0) == pytest.approx(4, rel=0.4)
    assert estimates.prefill_rate("slow", "n", 0.0) == pytest.approx(200, rel=0.4)


@pytest.mark.parametrize("exponent", [0.0, 0.3, 1.0])
def test_the_effect_of_concurrency_is_learned(exponent):
    rng, estimates = random.Random(2), Estimates()
    for _ in range(300):
        level = rng.randint(1, 4)
        answer(estimates, concurrency=level, decode=60 / level**exponent)
    for level in range(1, 5):
        rate = estimates.decode_rate("a", "m", level, 0.0)
        assert rate == pytest.approx(60 / level**exponent, rel=0.25)


@pytest.mark.parametrize("hit_share", [0.1, 0.3, 0.6])
def test_prompts_remembered_unexpectedly_do_not_make_reading_look_fast(hit_share):
    rng, estimates = random.Random(4), Estimates()
    for _ in range(300):
        prompt = rng.randint(500, 4000)
        read = prompt // 30 if rng.random() < hit_share else prompt
        answer(estimates, prompt=prompt, read=read, noise=rng.lognormvariate(0.0, 0.15))
    assert estimates.prefill_rate("a", "m", 0.0) == pytest.approx(2500, rel=0.3)


def test_prompts_forgotten_unexpectedly_do_not_make_reading_look_slow():
    estimates = fleet(1)
    before = estimates.prefill_rate("b0", "m", 0.0)
    for _ in range(20):
        answer(estimates, "b0", hit=900, read=1000)
    assert estimates.prefill_rate("b0", "m", 0.0) == pytest.approx(before)


def test_slowness_shows_even_where_a_hit_was_expected():
    estimates = fleet(1)
    for _ in range(20):
        answer(estimates, "b0", hit=500, read=1000, prefill=250.0)
    assert estimates.prefill_rate("b0", "m", 0.0) == pytest.approx(250, rel=0.2)


def test_a_backend_that_stays_faster_than_any_hit_explains_is_believed():
    estimates = Estimates()
    for count in range(1, 31):
        answer(estimates, prefill=50_000.0, decode=1000.0)
        if count == 4:
            assert estimates.prefill_rate("a", "m", 0.0) == pytest.approx(2500)
    assert estimates.prefill_rate("a", "m", 0.0) == pytest.approx(50_000, rel=0.35)


def test_among_fast_prompts_in_a_row_the_slowest_shows_how_fast_reading_is():
    estimates = Estimates()
    for index in range(60):
        answer(estimates, prompt=20_000, read=500 if index % 2 else 20_000, prefill=50_000.0)
        assert estimates.prefill_rate("a", "m", 0.0) < 75_000
    assert estimates.prefill_rate("a", "m", 0.0) == pytest.approx(50_000, rel=0.35)


def test_short_prompts_do_not_make_long_ones_look_slow():
    rng, estimates = random.Random(5), Estimates()
    for _ in range(300):
        prompt = 40 if rng.random() < 0.7 else 2000
        estimates.note_generation(
            "a",
            "m",
            concurrency=1,
            prompt_token_count=prompt,
            expected_hit_token_count=0,
            prompt_seconds=0.03 + prompt / 2500,
            output_token_count=50,
            output_seconds=1.0,
            now=0.0,
        )
    overhead = estimates.text_overhead_seconds("a", "m", 0.0)
    rate = estimates.prefill_rate("a", "m", 0.0)
    assert overhead + 2000 / rate == pytest.approx(0.83, rel=0.1)
    assert overhead + 40 / rate == pytest.approx(0.046, rel=0.15)


@pytest.mark.parametrize(("overhead", "rate"), [(0.005, 20_000.0), (0.02, 800.0)])
def test_the_fixed_cost_of_embedding_is_told_from_that_of_tokens(overhead, rate):
    rng, estimates = random.Random(6), Estimates()
    for _ in range(300):
        texts = rng.choice([1, 1, 1, 8, 32])
        tokens = sum(rng.randint(10, 200) for _ in range(texts))
        estimates.note_texts(
            "a",
            "e",
            token_count=tokens,
            text_count=texts,
            seconds=overhead + tokens / rate,
            now=0.0,
        )
    for tokens in (50, 200, 3000):
        expected = estimates.text_overhead_seconds("a", "e", 0.0)
        expected += tokens / estimates.prefill_rate("a", "e", 0.0)
        assert expected == pytest.approx(overhead + tokens / rate, rel=0.25)


def test_short_calls_say_little_of_tokens():
    estimates = Estimates()

    def call(tokens, seconds):
        estimates.note_texts("a", "e", token_count=tokens, text_count=1, seconds=seconds, now=0.0)

    for _ in range(40):
        call(5, 0.051)
        call(2000, 0.45)
    rate, overhead = (
        estimates.prefill_rate("a", "e", 0.0),
        estimates.text_overhead_seconds("a", "e", 0.0),
    )
    for _ in range(4):
        call(5, 0.2)
    assert estimates.prefill_rate("a", "e", 0.0) == pytest.approx(rate, rel=0.1)
    assert estimates.text_overhead_seconds("a", "e", 0.0) > 1.2 * overhead


def test_a_call_without_texts_teaches_nothing():
    estimates = Estimates()
    estimates.note_texts("a", "e", token_count=0, text_count=0, seconds=0.001, now=0.0)
    assert figures(estimates, "a", "e", 0.0) == figures(Estimates(), "a", "e", 0.0)


def test_loads_are_learned_beside_the_size_of_the_model():
    estimates = Estimates()
    for _ in range(4):
        estimates.note_load("a", "m", seconds=30.0, size_bytes=4 * 10**9, now=0.0)
    assert estimates.load_seconds("a", "m", 4 * 10**9, 0.0) == pytest.approx(30, rel=0.25)
    assert estimates.load_seconds("a", "m", 9 * 10**9, 0.0) == pytest.approx(60, rel=0.25)
    assert estimates.load_seconds("a", "n", 4 * 10**9, 0.0) > 12
    assert estimates.load_seconds("a", "m", 4 * 10**9, 3600.0) > 20


def test_characters_per_token_are_learned_per_model():
    estimates = Estimates()
    assert estimates.token_count("m", 400, 0.0) == 100
    for _ in range(20):
        estimates.note_characters("m", character_count=2000, token_count=1000, now=0.0)
        estimates.note_characters("n", character_count=3000, token_count=1000, now=0.0)
    assert estimates.token_count("m", 400, 0.0) == pytest.approx(200, abs=10)
    assert estimates.token_count("n", 300, 0.0) == pytest.approx(100, abs=10)
    assert 100 < estimates.token_count("never run", 300, 0.0) < 150


def test_a_forgotten_backend_is_like_one_never_seen():
    estimates = fleet(2)
    for _ in range(20):
        answer(estimates, "slow", prefill=100.0, decode=2.0)
    estimates.note_load("slow", "m", seconds=300.0, size_bytes=10**9, now=0.0)
    estimates.note_texts("slow", "m", token_count=1, text_count=1, seconds=9.0, now=0.0)
    estimates.forget_backend("slow")
    assert figures(estimates, "slow", "m", 0.0) == figures(estimates, "new", "m", 0.0)


def test_a_text_gets_room_by_how_far_off_estimates_have_been():
    estimates = Estimates()
    unknown = estimates.most_tokens("m", 3000)
    assert unknown == pytest.approx(3450, abs=1)
    for number in range(200):
        estimates.note_characters("m", character_count=4000, token_count=1000, now=number)
    assert 3060 <= estimates.most_tokens("m", 3000) < 3150
    for number in range(200):
        # Prose and code by turns.
        tokens = 1000 if number % 2 else 1600
        estimates.note_characters("m", character_count=4000, token_count=tokens, now=200 + number)
    assert estimates.most_tokens("m", 3000) == unknown
