from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.semantic.normal import normal_form


@given(st.text())
def test_a_normal_form_is_its_own_normal_form(text):
    assert normal_form(normal_form(text)) == normal_form(text)


def test_composed_and_decomposed_letters_and_white_space_are_one():
    assert normal_form("  cafe\u0301\n\tau  lait ") == "caf\u00e9 au lait"


def test_case_and_punctuation_stay():
    assert normal_form("Polish?") == "Polish?"
