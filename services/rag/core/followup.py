"""Whether a question leans on what was said before, told from its words alone.

Asking a model about each question would cost more time than it saves. Taking a question for a
follow-up that is none costs one short call to a model, and its outcome is checked; missing one
finds the wrong passages. So in doubt a question is a follow-up.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from services.rag.core.followup_words import ENGLISH, GERMAN, FollowUpWords
from services.rag.core.literals import literals

__all__ = ["leans_on_history", "telling_words"]

_TOKEN = re.compile(r"[^\W_][\w'\u2019-]*|[,;:]")
_LONGEST_FRAGMENT = 4
_LONGEST_CONTINUATION = 7
_LONGEST_VAGUE_QUESTION = 6
_LONGEST_CONSIDERED_CHARACTERS = 400
# So many words that name something say well enough what a part of a sentence is about.
_TELLING_WORDS = 2
_MOST_VAGUE_WORDS = 2
# The German article, but for the noun it belongs to, stands for what was named before.
_GERMAN_DAS = re.compile(r"\b[Dd]as\b(?!\s+(?:[^\W\d_a-zäöüß]\w*|\w+(?:e|er|es|en|te)\s+[A-ZÄÖÜ]))")
_IRREGULAR_PLURALS = frozenset({"people", "children", "men", "women", "data", "media"})
_POLITE = frozenset({"Sie", "Ihnen", "Ihr", "Ihre", "Ihrer", "Ihren", "Ihrem", "Ihres"})


@dataclass(frozen=True, slots=True)
class _Reading:
    """A question taken apart.

    Attributes:
        original: Its tokens as they stand there; commas are tokens too.
        tokens: The same in lower case.
        words: What speaks of the language it is in.
        text: The question in lower case, white space made one.
    """

    original: tuple[str, ...]
    tokens: tuple[str, ...]
    words: FollowUpWords
    text: str

    def names_something(self, token: str) -> bool:
        """Whether a token is a word that names something."""
        return token[0].isalnum() and token not in self.words.function_words

    @property
    def content(self) -> list[str]:
        """The words that name something."""
        return [token for token in self.tokens if self.names_something(token)]

    @property
    def word_count(self) -> int:
        """How many words there are."""
        return sum(token[0].isalnum() for token in self.tokens)


def leans_on_history(question: str) -> bool:
    """Says whether a question that follows others probably means something said in those.

    Args:
        question: English or German; of others only the shortest are told right.
    """
    if len(question) > _LONGEST_CONSIDERED_CHARACTERS:
        return False
    reading = _read(question)
    return (
        not reading.content
        or _continues(reading)
        or _points_back(reading, question)
        or _is_fragment(reading)
        or _is_vague(reading, question)
        or any(
            _stands_for_something_said(reading, position)
            for position, token in enumerate(reading.tokens)
            if token in reading.words.pronouns
        )
    )


def telling_words(text: str) -> list[str]:
    """Returns the words of an English or German text that name something, as they stand there."""
    silent = ENGLISH.function_words | GERMAN.function_words
    return [
        token
        for token in _TOKEN.findall(text.replace("\u2019", "'"))
        if token[0].isalnum() and token.lower() not in silent
    ]


def _read(question: str) -> _Reading:
    original = tuple(_TOKEN.findall(question.replace("\u2019", "'")))
    tokens = tuple(token.lower() for token in original)
    german = sum(token in GERMAN.function_words for token in tokens)
    english = sum(token in ENGLISH.function_words for token in tokens)
    text = " ".join(question.replace("\u2019", "'").lower().split()).rstrip(" ?!.\u2026")
    return _Reading(original, tokens, GERMAN if german > english else ENGLISH, text)


def _continues(reading: _Reading) -> bool:
    if reading.words.openings.match(reading.text):
        return True
    first = reading.tokens[0]
    return first in reading.words.connectives and reading.word_count <= _LONGEST_CONTINUATION


def _points_back(reading: _Reading, question: str) -> bool:
    if reading.words.pointers.search(reading.text):
        return True
    return reading.words is GERMAN and _GERMAN_DAS.search(question) is not None


def _is_fragment(reading: _Reading) -> bool:
    """Whether it is no sentence, such as `on Windows?` or `the price?`."""
    words = reading.words
    first = reading.tokens[0]
    if reading.word_count > _LONGEST_FRAGMENT or first in words.question_words:
        return False
    return (
        first in words.prepositions
        or (first in words.definite and not _has_name(reading))
        or all(token in words.relational for token in reading.content)
    )


def _is_vague(reading: _Reading, question: str) -> bool:
    """Whether it is about something that is always of something else, and does not say of what."""
    words, content = reading.words, reading.content
    if reading.word_count > _LONGEST_VAGUE_QUESTION or literals(question):
        return False
    if all(token in words.relational for token in content):
        return True
    if len(content) > _MOST_VAGUE_WORDS or _has_name(reading):
        return False
    padded = ("", *reading.tokens, "")
    return any(
        token in words.definite
        and reading.names_something(following)
        # Of two words, one is what is told of the other.
        and (len(content) == 1 or (words is ENGLISH and before in words.question_words))
        and behind not in words.prepositions
        for before, token, following, behind in zip(
            padded, padded[1:], padded[2:], (*padded[3:], ""), strict=False
        )
        if following
    )


def _has_name(reading: _Reading) -> bool:
    """Whether a capital marks a name; not in German, where it marks any noun."""
    return reading.words is ENGLISH and any(
        token[0].isupper() and reading.names_something(token.casefold())
        for token in reading.original[1:]
    )


def _stands_for_something_said(reading: _Reading, position: int) -> bool:
    """Whether a pronoun means nothing that the question itself has named before it."""
    words, token, original = reading.words, reading.tokens[position], reading.original[position]
    before, after = reading.tokens[:position], reading.tokens[position + 1 :]
    if words is GERMAN:
        # `Dazu, dass` and `, damit` join sentences, and `Sie` speaks to the reader.
        joins = after[:1] == (",",) or before[-1:] == (",",)
        if original in _POLITE or (joins and token.startswith("da")):
            return False
    if token in ("it", "it's", "es") and words.impersonal.search(reading.text):
        return False
    plural = token in words.plurals
    if token in words.possessives:
        return not _names_anything(reading, before, plural=plural)
    separators = [
        index for index, each in enumerate(before) if each in words.separators or each in ",;:"
    ]
    return not any(_names_anything(reading, before[:index], plural=plural) for index in separators)


def _names_anything(reading: _Reading, tokens: Sequence[str], *, plural: bool) -> bool:
    """Whether a pronoun behind these tokens can stand for something among them."""
    words = reading.words
    named = [
        reading.names_something(each)
        and each not in words.relational
        and (not plural or each.endswith("s") or each in _IRREGULAR_PLURALS)
        for each in tokens
    ]
    if sum(named) >= (1 if plural else _TELLING_WORDS):
        return True
    return any(
        token in words.determiners and is_named
        for token, is_named in zip(tokens, named[1:], strict=False)
    )
