"""One pass over a question's tokens: what it is about, and what stands in which relation."""

from __future__ import annotations

from enum import IntEnum

from services.cache.core.semantic.tokens import BORDER, CODE, NUMBER, ORDINAL, WORD, Token
from services.cache.core.semantic.vocabulary import (
    ALTERNATIVES,
    AUXILIARIES,
    DIRECTIONS,
    FILLERS,
    FUNCTION_WORDS,
    LINKING_VERBS,
    NEGATIONS,
    PERSONS,
    PREPOSITIONS,
    QUANTIFIERS,
    STRANDED,
    SUBJECTS,
    TARGET_VERBS,
)

__all__ = ["ANY", "Gap", "Reading", "Segment", "key"]

ANY = "*"
"""Stands for what a word refers to where the order of words does not show it."""

Segment = tuple[str, tuple[str, ...]]
"""A preposition, or "" at the beginning and "," after a border, and the words up to the next."""


class Gap(IntEnum):
    """What stands between a word and the word before it."""

    NONE = 0
    FUNCTION_WORD = 1
    RELATION = 2


# Looking them up in their class is a call each time.
_NO_GAP, _FUNCTION_WORD, _RELATION = Gap.NONE, Gap.FUNCTION_WORD, Gap.RELATION

# A question is about none of these words.
_HEADLESS = FUNCTION_WORDS | FILLERS | NEGATIONS | QUANTIFIERS.keys() | PREPOSITIONS
_STRUCTURE = _HEADLESS | DIRECTIONS.keys()
# "To be", "to do" and "to have" are infinitives.
_TARGETS = FUNCTION_WORDS - {"be", "do", "have"}


class Reading:
    """What one pass over a question's tokens finds; see `Features` for its attributes.

    Args:
        tokens: With phrases joined.
    """

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._heads = _heads(tokens)
        self.words: list[str] = []
        self.negations: list[str] = []
        self.quantifiers: list[tuple[str, str]] = []
        self.relations: list[tuple[str, str]] = []
        self.persons: set[str] = set()
        self.segments: list[tuple[str, list[str]]] = [("", [])]
        self.gaps: list[Gap] = []
        self._gap = _NO_GAP
        for position, token in enumerate(tokens):
            self._read(position, token)
        if not self.words:
            self._take_all()
        self.segments = [segment for segment in self.segments if segment[1]]

    def _read(self, position: int, token: Token) -> None:
        text = token.text
        if token.kind is BORDER:
            self.segments.append((",", []))
            self._gap = max(self._gap, _FUNCTION_WORD)
        elif token.kind is not WORD:
            self._take(key(token))
        elif text not in _STRUCTURE:
            self._take(text)
        elif text in NEGATIONS:
            self.negations.append(ANY if self._is_inverted(position) else self._heads[position])
        elif text in QUANTIFIERS:
            self.quantifiers.append((QUANTIFIERS[text], self._heads[position]))
        elif text in PREPOSITIONS or text in DIRECTIONS:
            self._relate(position, text)
        else:
            self._pass_over(text)

    def _take(self, word: str) -> None:
        self.words.append(word)
        self.segments[-1][1].append(word)
        self.gaps.append(self._gap)
        self._gap = _NO_GAP

    def _is_inverted(self, position: int) -> bool:
        """Whether this "not" stands before the subject, so that its verb comes later."""
        if not position:
            return True
        before = self._tokens[position - 1].text
        following = self._tokens[position + 1 : position + 2]
        return before in AUXILIARIES and bool(following) and following[0].text in SUBJECTS

    def _relate(self, position: int, text: str) -> None:
        self.segments.append((text, []))
        self._gap = _RELATION
        if text in STRANDED and position == len(self._tokens) - 1:
            # "who is Anna the mother of" asks for another person than "who is the mother of Anna".
            self.relations.append((text, ""))
        direction = DIRECTIONS.get(text)
        following = self._tokens[position + 1 : position + 2]
        if direction == "to" and following and following[0].text in ("me", "us"):
            # "send it to me" is "send me it"; the pronoun is noted when it comes.
            return
        if direction is None or (direction == "to" and not self._has_target(position)):
            return
        self.relations.append((direction, self._heads[position]))

    def _has_target(self, position: int) -> bool:
        """Whether this "to" leads somewhere, and does not begin an infinitive."""
        following = self._tokens[position + 1 : position + 2]
        if following and (
            following[0].kind is not WORD or following[0].is_name or following[0].text in _TARGETS
        ):
            return True
        before = self._tokens[max(0, position - 6) : position]
        return any(token.text in TARGET_VERBS or token.text == "from" for token in before)

    def _pass_over(self, text: str) -> None:
        self._gap = max(self._gap, _RELATION if text in LINKING_VERBS else _FUNCTION_WORD)
        person = PERSONS.get(text)
        if person:
            self.persons.add(person)
        if text in ("me", "us"):
            self.relations.append(("me", ""))
        elif text in ("he", "she", "him"):
            # "can she call him" is not "can he call her".
            self.relations.append((text, ""))
        if text in ALTERNATIVES:
            self.segments.append((text, []))

    def _take_all(self) -> None:
        """Compares a question of function words only by these."""
        self.segments = [("", [])]
        self.gaps = []
        for token in self._tokens:
            if token.kind is not BORDER:
                self._take(key(token))


def key(token: Token) -> str:
    """Returns the word a token is compared by; an ordinal is told from a number."""
    return f"{token.text}." if token.kind is ORDINAL else token.text


def _heads(tokens: list[Token]) -> list[str]:
    """The next word after each token that a question is about, within the clause."""
    heads = [""] * len(tokens)
    head = ""
    following: Token | None = None
    for position in range(len(tokens) - 1, -1, -1):
        heads[position] = head
        token = tokens[position]
        if token.kind is BORDER:
            head = ""
        elif token.kind is not WORD or token.text not in _HEADLESS:
            head = key(token)
            if following is not None and following.kind in (NUMBER, CODE):
                # "terminal 3" is another place than "terminal 1".
                head = f"{head} {key(following)}"
        following = token
    return heads
