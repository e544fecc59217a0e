"""The stop words of a question are those of the language that it is most likely in."""

import pytest

from services.rag.core.stop_words import STOP_WORDS, stop_words_of


@pytest.mark.parametrize(
    ("question", "languages", "spoken"),
    [
        ("how do i limit the memory of the cache", ("en", "de"), "en"),
        ("wie begrenze ich den speicher der ablage", ("en", "de"), "de"),
        ("comment est-ce que je limite la m\u00e9moire", ("en", "fr", "es"), "fr"),
        ("c\u00f3mo limito la memoria de los datos", ("en", "fr", "es"), "es"),
    ],
)
def test_the_language_with_most_stop_words_in_the_question_counts(question, languages, spoken):
    assert stop_words_of(question.split(), languages) == STOP_WORDS[spoken]


def test_where_languages_fit_equally_well_the_likeliest_counts():
    assert stop_words_of(["cache"], ("de", "en")) == STOP_WORDS["de"]
    assert stop_words_of(["cache"], ("en", "de")) == STOP_WORDS["en"]


def test_a_language_without_a_list_has_no_stop_words():
    assert stop_words_of(["the", "cache"], ("xx",)) == frozenset()
    assert stop_words_of(["the", "cache"], ()) == frozenset()


@pytest.mark.parametrize("language", sorted(STOP_WORDS))
def test_the_words_are_as_questions_are_compared(language):
    words = STOP_WORDS[language]
    assert words
    assert words == {word.casefold() for word in words}


def test_what_a_question_may_be_after_is_no_stop_word():
    every = frozenset().union(*STOP_WORDS.values())
    assert every.isdisjoint({"time", "name", "server", "version", "zeit", "temps"})
