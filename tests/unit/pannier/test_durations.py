"""Durations on the command line."""

import pytest
import typer

from pannier.commands.durations import duration, seconds_within

GRACE = seconds_within(0, 3600)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("60s", 60.0), ("500ms", 0.5), ("2m", 120.0), ("1h", 3600.0), ("1.5", 1.5), ("0", 0.0)],
)
def test_a_duration_has_a_unit_or_is_in_seconds(written, seconds):
    assert GRACE(written) == seconds


@pytest.mark.parametrize("written", ["", "s", "-1s", "1d", "1 s", "61m", "1e3", "nan", "٣s"])
def test_what_is_no_duration_or_out_of_range_is_refused_with_the_range(written):
    with pytest.raises(typer.BadParameter, match="from 0 to 3600 seconds"):
        GRACE(written)


def test_seconds_become_a_message_to_the_nanosecond():
    assert duration(0.1).ToNanoseconds() == 100_000_000
