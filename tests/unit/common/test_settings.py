from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.server import CommonSettings
from services.common.settings import (
    SettingsError,
    boolean,
    byte_size,
    choice,
    comma_separated,
    describe,
    duration_seconds,
    host_and_port,
    integer,
    load,
    number,
    setting,
    text,
)

PREFIX = "PANNIER_TEST_"


@dataclass(frozen=True, kw_only=True)
class Example:
    required: str = setting(text, "A name.")
    count: int = setting(integer(1, 10), "A number.", default="3")
    key: str = setting(choice("a", "b"), "A secret.", default="a", secret=True)


def test_defaults_hold_where_variables_are_missing():
    settings = load(Example, {"PANNIER_TEST_REQUIRED": "x"}, prefix=PREFIX)
    assert (settings.required, settings.count, settings.key) == ("x", 3, "a")


def test_all_problems_are_reported_at_once():
    environment = {"PANNIER_TEST_COUNT": "11", "PANNIER_TEST_CUONT": "1", "OTHER_CUONT": "1"}
    with pytest.raises(SettingsError) as raised:
        load(Example, environment, prefix=PREFIX)
    problems = raised.value.problems
    assert len(problems) == 3
    assert problems[0].startswith("PANNIER_TEST_REQUIRED is not set")
    assert problems[1] == "PANNIER_TEST_COUNT='11' is not valid: must be from 1 to 10"
    assert problems[2].startswith("PANNIER_TEST_CUONT is no known setting")


def test_a_secret_shows_neither_in_problems_nor_in_the_settings():
    environment = {"PANNIER_TEST_REQUIRED": "x", "PANNIER_TEST_KEY": "hunter2"}
    with pytest.raises(SettingsError) as raised:
        load(Example, environment, prefix=PREFIX)
    assert "hunter2" not in str(raised.value)
    environment["PANNIER_TEST_KEY"] = "b"
    assert "'b'" not in repr(load(Example, environment, prefix=PREFIX))


def test_every_setting_is_described_with_its_variable():
    described = describe(Example, prefix=PREFIX)
    assert [each.variable for each in described] == [
        "PANNIER_TEST_REQUIRED",
        "PANNIER_TEST_COUNT",
        "PANNIER_TEST_KEY",
    ]
    assert [each.default for each in described] == [None, "3", "a"]


@pytest.mark.parametrize(
    ("value", "seconds"), [("250ms", 0.25), ("30s", 30), ("1.5m", 90), ("24h", 86400), ("30", 30)]
)
def test_durations_have_units(value, seconds):
    assert duration_seconds("1ms", "30d")(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["s", "-1s", "1 week", "", "1e3s"])
def test_a_duration_without_a_known_unit_is_refused(value):
    with pytest.raises(ValueError, match="units"):
        duration_seconds("1ms", "30d")(value)


@pytest.mark.parametrize(("value", "size"), [("10", 10), ("4KiB", 4096), ("2MiB", 2 * 1024**2)])
def test_sizes_have_binary_units(value, size):
    assert byte_size("1B", "1GiB")(value) == size


@pytest.mark.parametrize(
    ("parser", "value"),
    [
        (boolean, "yes"),
        (integer(0, 5), "1.5"),
        (integer(0, 5), "6"),
        (number(0, 1), "nan"),
        (number(0, 1), "inf"),
        (byte_size("1KiB", "1MiB"), "1B"),
        (byte_size("1KiB", "1MiB"), "1MB"),
        (choice("a"), "b"),
        (comma_separated(text, minimum_count=2), "a,,"),
        (host_and_port, "localhost"),
        (host_and_port, "localhost:99999"),
        (host_and_port, ":50051"),
    ],
)
def test_what_breaks_a_rule_is_refused(parser, value):
    with pytest.raises(ValueError, match="must"):
        parser(value)


@given(st.integers(), st.integers(0, 100), st.integers(0, 100))
def test_an_integer_is_accepted_exactly_within_its_range(value, first, second):
    low, high = min(first, second), max(first, second)
    parse = integer(low, high)
    if low <= value <= high:
        assert parse(str(value)) == value
    else:
        with pytest.raises(ValueError, match="must be from"):
            parse(str(value))


@pytest.mark.parametrize("variable", ["GRPC_ADDRESS", "HTTP_ADDRESS"])
@pytest.mark.parametrize("address", ["0.0.0.0:50051", "127.evil.example:50051", "[::]:1"])
def test_a_strange_address_needs_leave_to_be_unprotected(variable, address):
    with pytest.raises(SettingsError, match="no loopback address"):
        load(CommonSettings, {f"PANNIER_TEST_{variable}": address}, prefix=PREFIX)
    load(
        CommonSettings,
        {
            "PANNIER_TEST_GRPC_ADDRESS": "0.0.0.0:50051",
            "PANNIER_TEST_ALLOW_INSECURE": "true",
        },
        prefix=PREFIX,
    )


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.8.8.8:1", "localhost:1", "[::1]:1"])
def test_loopback_needs_no_leave(address):
    load(CommonSettings, {"PANNIER_TEST_GRPC_ADDRESS": address}, prefix=PREFIX)
