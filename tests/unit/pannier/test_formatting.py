"""How values are shown to people."""

import pytest

from pannier.commands.formatting import (
    clean,
    format_bytes,
    format_ratio,
    format_seconds,
    shorten,
)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 ms"),
        (0.00042, "0.42 ms"),
        (0.0123, "12.3 ms"),
        (1.254, "1.25 s"),
        (125, "2 min 5 s"),
        (59.99, "59.99 s"),
    ],
)
def test_durations_have_the_unit_that_fits(seconds: float, shown: str):
    assert format_seconds(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(512, "512 B"), (1536, "1.5 KiB"), (268435456, "256.0 MiB"), (3 * 1024**3, "3.0 GiB")],
)
def test_sizes_have_the_unit_that_fits(count: int, shown: str):
    assert format_bytes(count) == shown


def test_ratios_are_shown_in_percent():
    assert format_ratio(0.9551) == "95.5 %"


def test_what_would_steer_a_terminal_is_removed():
    assert clean("a\x1b[31mred\x07\x9b\r\nb\tc") == "a[31mred\nb\tc"


def test_a_text_is_brought_onto_one_short_line():
    assert shorten("one  two\nthree", 20) == "one two three"
    assert shorten("one two three", 8) == "one two…"
