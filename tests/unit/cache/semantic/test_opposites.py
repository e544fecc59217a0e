import pytest

from services.cache.core.semantic.inflection import base_form
from services.cache.core.semantic.opposites import are_opposites, is_of_degree
from services.cache.core.semantic.synonyms import standing_for


def form(word):
    return standing_for(base_form(word))


@pytest.mark.parametrize(
    ("word", "other"),
    [
        ("enabled", "disabled"),
        ("buying", "selling"),
        ("lock", "unlock"),
        ("possible", "impossible"),
        ("regular", "irregular"),
        ("max", "min"),
        ("landlord", "tenant"),
    ],
)
def test_opposites_are_known_both_ways(word, other):
    assert are_opposites(form(word), form(other))
    assert are_opposites(form(other), form(word))


@pytest.mark.parametrize(
    ("word", "other"), [("card", "card"), ("cat", "dog"), ("port", "import"), ("is", "this")]
)
def test_other_words_are_not(word, other):
    assert not are_opposites(form(word), form(other))


def test_comparatives_and_superlatives_are_of_degree():
    assert all(is_of_degree(base_form(word)) for word in ("more", "cheapest", "higher", "minimum"))
    assert not any(is_of_degree(base_form(word)) for word in ("water", "forest", "server", "test"))
