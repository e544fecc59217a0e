"""What tells two similar questions apart, as text alone shows it.

A guard only refuses: what passes all of them still needs the similarity of its vectors. Both
questions must be about the same words, after inflection, synonyms and politeness are taken out,
and put them into the same relations. Kinds of words that similarity is blind to have guards of
their own, so that statistics show what is refused and why.
"""

from __future__ import annotations

from enum import Enum

from services.cache.core.semantic.features import Features, features
from services.cache.core.semantic.opposites import are_opposites, is_of_degree
from services.cache.core.semantic.question import Tense, Wanted
from services.cache.core.semantic.reading import ANY
from services.cache.core.semantic.word_order import says_the_same

__all__ = ["Features", "Guard", "features", "refusal", "refusal_of"]


class Guard(Enum):
    """What a refusal rests on; names and order are those of the contract's `SemanticGuard`."""

    NUMBERS = "numbers"
    UNITS = "units"
    DATES = "dates"
    NEGATION = "negation"
    POLARITY = "polarity"
    ENTITIES = "entities"
    DIRECTION = "direction"
    QUANTIFIERS = "quantifiers"
    COMPARATIVES = "comparatives"
    QUESTION_TYPE = "question_type"
    CONTENT_WORDS = "content_words"


# Vague words that one of two questions may have more.
_VAGUE_WORDS_ALLOWED = 2
_THIRD_PERSONS = frozenset({"man", "woman"})
_TENSELESS = frozenset({Wanted.WHY, Wanted.HOW})
_WHICH = frozenset({Wanted.WHAT, Wanted.AMOUNT})


def refusal(query: str, other: str) -> Guard | None:
    """Returns the first guard that tells two questions apart, or None; symmetric."""
    return refusal_of(features(query), features(other))


def refusal_of(query: Features, other: Features) -> Guard | None:
    """Returns the first guard that tells two questions apart, or None; symmetric."""
    if query.normal == other.normal:
        return None
    if query.words == other.words:
        return _other_measure(query, other) or _other_sense(query, other)
    here, there = query.words - other.words, other.words - query.words
    return (
        _other_measure(query, other)
        or (Guard.NEGATION if not _negated_alike(query, other) else None)
        or _other_words(query, other, here, there)
        or _other_sense(query, other)
    )


def _other_measure(query: Features, other: Features) -> Guard | None:
    if query.numbers != other.numbers:
        return Guard.NUMBERS
    if query.units != other.units:
        return Guard.UNITS
    return Guard.DATES if query.dates != other.dates else None


def _other_words(
    query: Features, other: Features, here: frozenset[str], there: frozenset[str]
) -> Guard | None:
    """Tells why questions with different words are different, or None where they need not be."""
    if any(are_opposites(word, opposite) for word in here for opposite in there):
        return Guard.POLARITY
    if here & query.names or there & other.names:
        return Guard.ENTITIES
    differing = here | there
    if any(is_of_degree(word) for word in differing):
        return Guard.COMPARATIVES
    is_addition = not (here and there) and len(differing) <= _VAGUE_WORDS_ALLOWED
    if is_addition and here <= query.vague and there <= other.vague:
        return None
    return Guard.CONTENT_WORDS


def _other_sense(query: Features, other: Features) -> Guard | None:
    """Tells apart questions with the same words."""
    if not _negated_alike(query, other):
        return Guard.NEGATION
    if query.relations != other.relations or _other_persons(query.persons, other.persons):
        return Guard.DIRECTION
    if not says_the_same(query, other):
        return Guard.DIRECTION
    if _quantified(query) != _quantified(other):
        return Guard.QUANTIFIERS
    if query.wanted.isdisjoint(other.wanted) or _other_modal(query, other):
        return Guard.QUESTION_TYPE
    return Guard.DATES if _other_tense(query, other) else None


def _quantified(query: Features) -> list[tuple[str, str]]:
    # "some" asks for no particular number.
    return [quantifier for quantifier in query.quantifiers if quantifier[0] != "some"]


def _negated_alike(query: Features, other: Features) -> bool:
    """Whether as much is negated, and the same where the order of words shows what."""
    heads, others = query.negations, other.negations
    if len(heads) != len(others):
        return False
    return ANY in heads or ANY in others or heads == others


def _other_persons(persons: frozenset[str], others: frozenset[str]) -> bool:
    if persons & _THIRD_PERSONS != others & _THIRD_PERSONS:
        return True
    return bool(persons and others) and persons.isdisjoint(others)


def _other_modal(query: Features, other: Features) -> bool:
    modals = {query.modal, other.modal} - {""}
    if modals == {"is", "can"}:
        # Where it is said is where it can be said; what is said is not all that can be.
        return not _WHICH.isdisjoint(query.wanted & other.wanted)
    return len(modals) > 1


def _other_tense(query: Features, other: Features) -> bool:
    """Whether only one asks of the past; causes and ways are asked for in any tense."""
    if query.tense is None or other.tense is None or _TENSELESS & query.wanted & other.wanted:
        return False
    return (query.tense is Tense.PAST) != (other.tense is Tense.PAST)
