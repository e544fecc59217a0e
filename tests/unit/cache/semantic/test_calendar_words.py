import pytest

from services.cache.core.semantic.calendar_words import MONTHS, WEEKDAYS, time_of_day


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("3pm", "15:00"),
        ("3:30 p.m.", "15:30"),
        ("12 am", "00:00"),
        ("12pm", "12:00"),
        ("15:00", "15:00"),
        ("9:05:30", "09:05"),
        ("77:00", None),
        ("noon", None),
    ],
)
def test_a_time_is_written_in_24_hours(text, time):
    assert time_of_day(text) == time


def test_short_names_are_the_same_months_and_days():
    assert MONTHS["sept"] == MONTHS["september"] == 9
    assert WEEKDAYS["thu"] == WEEKDAYS["thursday"] == 4
