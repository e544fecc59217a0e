import math

import pytest

from services.common.errors import InvalidRequest
from services.common.validation import Violations


def fields(check):
    violations = Violations()
    check(violations)
    try:
        violations.raise_found()
    except InvalidRequest as error:
        return [each.field for each in error.violations]
    return []


def test_all_problems_are_raised_together():
    def check(violations):
        violations.check_text("a", "", minimum_length=1, maximum_length=5)
        violations.check_text("b", "123456", maximum_length=5)
        violations.check_range("c", 7, 0, 5)

    assert fields(check) == ["a", "b", "c"]


@pytest.mark.parametrize("value", [math.nan, -0.1, 1.1, math.inf])
def test_a_number_outside_its_range_is_refused(value):
    assert fields(lambda v: v.check_range("x", value, 0, 1)) == ["x"]


@pytest.mark.parametrize("value", [None, 0, 1, 0.5])
def test_an_absent_number_and_the_edges_are_accepted(value):
    assert fields(lambda v: v.check_range("x", value, 0, 1)) == []


def test_required_text_must_hold_more_than_white_space():
    check = lambda v: v.check_text("x", " \n", minimum_length=1, maximum_length=9)  # noqa: E731
    assert fields(check) == ["x"]


@pytest.mark.parametrize("value", ["a\x00b", "\x1b[0m", "\x7f"])
def test_control_characters_are_refused(value):
    assert fields(lambda v: v.check_plain("x", value)) == ["x"]


def test_what_is_found_twice_is_told_once():
    def check(violations):
        for field in ("x", "y", "x"):
            violations.add(field, "Must be set.")

    assert fields(check) == ["x", "y"]


def test_line_breaks_and_tabs_are_no_control_characters():
    assert fields(lambda v: v.check_plain("x", "a\n\tb\r\n")) == []
