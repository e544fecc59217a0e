"""Durations and timestamps in Go's notation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.standin.core.times import (
    FOREVER_SECONDS,
    format_local,
    format_utc,
    nanoseconds,
    parse_duration,
    parse_keep_alive,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("300ms", 0.3), ("10m", 600), ("1h30m", 5400), ("-1.5s", -1.5), ("0", 0), (".5s", 0.5)],
)
def test_a_duration_is_a_sum_of_terms(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["abc", "", "5x", "1h 2m", "-"])
def test_what_is_no_duration_is_refused_in_gos_words(text):
    with pytest.raises(ValueError, match=f'time: invalid duration "{text}"'):
        parse_duration(text)


def test_a_duration_needs_a_unit():
    with pytest.raises(ValueError, match='time: missing unit in duration "300"'):
        parse_duration("300")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(20, 20), (0.5, 0.5), ("10m", 600), (0, 0), (-1, FOREVER_SECONDS), ("-1s", FOREVER_SECONDS)],
)
def test_keep_alive_is_seconds_or_a_duration_and_negative_means_for_ever(value, seconds):
    assert parse_keep_alive(value) == pytest.approx(seconds)


@pytest.mark.parametrize(("value", "kind"), [(True, "bool"), ([], "[]interface {}")])
def test_keep_alive_of_another_type_is_refused(value, kind):
    with pytest.raises(ValueError, match="Unsupported type: '") as error:
        parse_keep_alive(value)
    assert kind in str(error.value)


@pytest.mark.parametrize(
    ("epoch_seconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_700_000_000.5, "2023-11-14T22:13:20.5Z"),
        (1_700_000_000.125, "2023-11-14T22:13:20.125Z"),
    ],
)
def test_a_timestamp_has_no_trailing_zeros(epoch_seconds, text):
    assert format_utc(epoch_seconds) == text


@given(st.floats(0, 4e9))
def test_a_timestamp_has_one_to_nine_digits_or_no_fraction(epoch_seconds):
    _, point, fraction = format_utc(epoch_seconds).removesuffix("Z").partition(".")
    assert not point or (1 <= len(fraction) <= 9 and not fraction.endswith("0"))


def test_for_ever_is_a_date_about_292_years_on():
    assert format_local(1_767_225_600 + FOREVER_SECONDS).startswith("2318-")


def test_durations_are_integer_nanoseconds():
    assert nanoseconds(0.25) == 250_000_000
    assert isinstance(nanoseconds(1.0), int)
