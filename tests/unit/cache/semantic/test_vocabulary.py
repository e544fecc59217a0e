"""Words are listed as questions are compared, each with what it does in them."""

import pytest

from services.cache.core.semantic import vocabulary as words
from services.cache.core.semantic.inflection import base_form

LISTED = [
    *(words.FUNCTION_WORDS, words.FILLERS, words.VAGUE_WORDS, words.VAGUE_NOUNS),
    *(words.NEGATIONS, words.PREPOSITIONS, words.AUXILIARIES, words.LINKING_VERBS),
    *(words.SUBJECTS, words.AMOUNTS, words.TIMES, words.QUANTIFIERS, words.DIRECTIONS),
]


@pytest.mark.parametrize("asked", ["could", "prices", "rates", "seems", "steps", "below", "every"])
def test_a_word_is_known_in_each_of_its_forms(asked):
    assert any(base_form(asked) in each for each in LISTED)


def test_what_changes_a_question_is_never_passed_over():
    telling = words.NEGATIONS | words.QUANTIFIERS.keys() | words.DIRECTIONS.keys() | words.AMOUNTS
    assert telling.isdisjoint(words.FILLERS)
    assert words.NEGATIONS.isdisjoint(words.FUNCTION_WORDS)


def test_words_of_one_person_or_quantity_stand_for_the_same():
    assert words.PERSONS["my"] == words.PERSONS["we"] != words.PERSONS["your"]
    assert words.QUANTIFIERS[base_form("every")] == words.QUANTIFIERS[base_form("all")]
    assert words.QUANTIFIERS[base_form("few")] != words.QUANTIFIERS[base_form("some")]
    assert words.DIRECTIONS["from"] != words.DIRECTIONS["to"] == words.DIRECTIONS["into"]
