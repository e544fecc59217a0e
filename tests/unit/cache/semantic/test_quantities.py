import pytest

from services.cache.core.semantic.quantities import UNITS, spoken_number, written_number


@pytest.mark.parametrize(
    ("digits", "is_amount", "normal"),
    [
        ("1,000", False, "1000"),
        ("007", False, "7"),
        ("5.00", True, "5"),
        ("3.10", False, "3.10"),
        ("2.50", True, "2.5"),
        ("3.11.4", False, "3.11.4"),
        ("1/2", False, "1/2"),
    ],
)
def test_a_number_has_one_way_of_writing(digits, is_amount, normal):
    assert written_number(digits, is_amount=is_amount) == normal


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("seven", 7),
        ("twenty two", 22),
        ("two hundred fifty", 250),
        ("three thousand one hundred", 3_100),
        ("dozen", 12),
        ("two bananas", None),
    ],
)
def test_number_words_have_their_value(words, value):
    assert spoken_number(words.split()) == value


def test_units_have_one_name():
    assert UNITS["kg"] == UNITS["kilogram"] == UNITS["kilo"] == "kilogram"
    assert UNITS["$"] == UNITS["usd"] == "dollar"
    assert UNITS["lb"] == UNITS["\u00a3"] == "pound"
