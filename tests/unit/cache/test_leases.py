"""Tokens order and date leases; their length follows from what answers take."""

from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.leases import (
    FIRST_LEASE_SECONDS,
    SECRET_BYTES,
    GenerationTimes,
    Lease,
    Origin,
    granted_ms,
    make_nonce,
    make_token,
    origin_of,
)

MICROSECONDS = st.integers(0, 9_999_999_999_999_999)
NONCES = st.from_regex(r"[0-9A-Za-z_-]{1,47}", fullmatch=True)


@given(MICROSECONDS, MICROSECONDS, NONCES, NONCES)
def test_the_token_of_a_later_lease_is_the_greater_text(first, second, nonce, other) -> None:
    if first < second:
        assert make_token(first, nonce) < make_token(second, other)


@given(MICROSECONDS, NONCES)
def test_a_token_tells_when_it_was_given(granted_us, nonce) -> None:
    token = make_token(granted_us, nonce)
    assert granted_ms(token) == granted_us // 1000
    assert Lease(token=token, seconds=1.0).granted_ms == granted_us // 1000


SECRETS = st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES)
ORIGINS = st.builds(Origin, st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1))


@given(MICROSECONDS, SECRETS, ORIGINS)
def test_a_token_tells_which_span_the_lease_was_given_to(granted_us, secret, origin) -> None:
    token = make_token(granted_us, make_nonce(secret, origin))
    assert origin_of(token) == origin
    assert len(token) <= 64
    assert granted_ms(token) == granted_us // 1000


@given(MICROSECONDS, SECRETS)
def test_the_token_of_a_caller_that_is_not_recorded_tells_of_none(granted_us, secret) -> None:
    token = make_token(granted_us, make_nonce(secret))
    assert origin_of(token) is None
    assert granted_ms(token) == granted_us // 1000


@given(MICROSECONDS, NONCES)
def test_whatever_stands_in_a_token_it_tells_of_a_span_or_of_none(granted_us, nonce) -> None:
    origin = origin_of(make_token(granted_us, nonce))
    assert origin is None or (0 < origin.trace_id < 2**128 and 0 < origin.span_id < 2**64)


@given(st.text())
def test_other_texts_are_no_tokens(text) -> None:
    assert granted_ms(text) is None or "-" in text
    assert granted_ms(f"{text}\n") is None


def test_a_model_of_which_nothing_is_known_gets_the_first_lease() -> None:
    assert GenerationTimes().lease_seconds("m") == FIRST_LEASE_SECONDS


def test_a_lease_lasts_twice_the_95th_percentile() -> None:
    times = GenerationTimes()
    for number in range(1, 101):
        times.note("m", number / 5)
    assert times.lease_seconds("m") == 2 * 96 / 5
    assert times.lease_seconds("another") == FIRST_LEASE_SECONDS


def test_a_lease_lasts_from_10_to_120_seconds() -> None:
    times = GenerationTimes()
    times.note("quick", 0.2)
    times.note("slow", 300.0)
    assert times.lease_seconds("quick") == 10.0
    assert times.lease_seconds("slow") == 120.0


def test_unknown_times_are_not_learned_from() -> None:
    times = GenerationTimes()
    times.note("m", 0.0)
    assert times.lease_seconds("m") == FIRST_LEASE_SECONDS


def test_old_samples_give_way_to_new_ones() -> None:
    times = GenerationTimes()
    for _ in range(200):
        times.note("m", 50.0)
    for _ in range(128):
        times.note("m", 10.0)
    assert times.lease_seconds("m") == 20.0


def test_models_unused_for_longest_are_forgotten() -> None:
    times = GenerationTimes()
    for number in range(257):
        times.note(str(number), 10.0)
        times.note("used", 15.0)
    assert times.lease_seconds("0") == FIRST_LEASE_SECONDS
    assert times.lease_seconds("used") == 30.0
    assert times.lease_seconds("256") == 20.0
