import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.semantic.inflection import base_form


@pytest.mark.parametrize(
    "forms",
    [
        "change changes changed changing",
        "cancel cancels cancelled canceled cancelling",
        "verify verifies verified verifying",
        "stop stops stopped stopping",
        "hope hopes hoped hoping",
        "pay pays paid paying",
        "freeze froze frozen freezing",
        "raise raised raising",
        "box boxes",
        "city cities",
        "child children",
        "organise organized organizing",
        "colour colors",
        "centre centers",
    ],
)
def test_the_forms_of_a_word_have_one_base(forms):
    assert len({base_form(form) for form in forms.split()}) == 1


@pytest.mark.parametrize(
    ("word", "other"),
    [
        ("import", "important"),
        ("custom", "customer"),
        ("employer", "employee"),
        ("general", "generate"),
        ("policy", "police"),
        ("plan", "plane"),
        ("hop", "hope"),
        ("leaves", "leave"),
        ("four", "for"),
        ("new", "news"),
        ("Franc".lower(), "france"),
        ("three", "thrice"),
    ],
)
def test_words_of_one_family_stay_apart(word, other):
    assert base_form(word) != base_form(other)


@given(st.text())
def test_any_text_has_a_base_form(text):
    assert isinstance(base_form(text), str)
