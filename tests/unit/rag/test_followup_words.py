from dataclasses import fields

import pytest

from services.rag.core.followup_words import ENGLISH, GERMAN

LANGUAGES = pytest.mark.parametrize("words", [ENGLISH, GERMAN], ids=["english", "german"])


@LANGUAGES
def test_words_are_single_and_in_lower_case(words):
    for field in fields(words):
        value = getattr(words, field.name)
        if isinstance(value, frozenset):
            assert all(each == each.lower() and len(each.split()) == 1 for each in value)


@LANGUAGES
def test_what_stands_for_something_else_names_nothing_itself(words):
    assert words.pronouns <= words.function_words
    assert words.possessives <= words.pronouns
    assert words.plurals <= words.pronouns
    # Words that are always of something are told from those that name nothing.
    assert not words.relational & words.function_words


@LANGUAGES
def test_patterns_do_not_find_anything_in_nothing(words):
    for pattern in (words.impersonal, words.pointers, words.openings):
        assert pattern.search("") is None


@pytest.mark.parametrize(
    ("words", "text", "impersonal"),
    [
        (ENGLISH, "is it possible to stop", True),
        (ENGLISH, "how long does it take to stop", True),
        (ENGLISH, "is it easier to learn than spanish", False),
        (ENGLISH, "how long does it take", False),
        (GERMAN, "gibt es eine grenze", True),
        (GERMAN, "was kostet es", False),
    ],
)
def test_a_pronoun_may_stand_for_nothing(words, text, impersonal):
    assert bool(words.impersonal.search(text)) == impersonal
