"""Which questions have an answer that others, or the same person later, may be given."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from functools import lru_cache

from services.cache.core.semantic.contractions import written_out
from services.cache.core.semantic.momentary import ASKING, asks_about_now

__all__ = [
    "LONGEST_QUESTION_TOKENS",
    "QuestionScope",
    "estimated_tokens",
    "scope_of",
    "scope_of_all",
]

LONGEST_QUESTION_TOKENS = 512
"""Longer questions are not compared as a whole; embedding models cut them."""


class QuestionScope(Enum):
    """Why a question is not answered from similar ones."""

    TIME_RELATIVE = "time_relative"
    PERSONAL = "personal"
    TOO_LONG = "too_long"


# Many are asked again, and those before it with each question of a conversation; at most 8 MiB.
_MOST_KNOWN = 1024
_LONGEST_KNOWN = 2048

# Ordinary text has four characters and more per token; digits and marks are tokens of their own.
_CHARACTERS_PER_TOKEN = 4
_PIECE = re.compile(r"[^\W\d_]+|\d|[^\w\s]|_")
_PERIOD = (
    r"(?:second|minute|hour|day|night|morning|afternoon|evening|weekend|week|fortnight|month"
    r"|quarter|year|season|semester|monday|tuesday|wednesday|thursday|friday|saturday|sunday)s?"
)
_TIME_RELATIVE = re.compile(
    rf"""\b(?:today|tonight|tomorrow|yesterday|nowadays|currently|presently|lately|recently|upcoming
    |now(?!\s+(?:then|that))|at\ (?:the|this|present)\ (?:very\ )?(?:moment|time|point\ in\ time)
    |right\ now|so\ far|as\ of|up\ to\ date|these\ days|this\ (?:past\ |coming\ )?{_PERIOD}
    |(?:last|next|past|coming|previous)\ (?:(?:few|couple\ of|\d+|two|three|four|five|six)\ )?
     {_PERIOD}|{_PERIOD}\ ago|a\ while\ ago
    |(?:latest|newest|most\ recent)(?!\ (?:possible|allowed|acceptable))
    |recent|current(?!\ accounts?\b|\s+(?:limiter|transformer|divider|flow))
    |what\ (?:time|day|date)\ is\ it
    |what\ is\ (?:the\ )?(?:time|date|day)\s*(?:\?|$)|breaking\ news|news|weather|forecast
    |live\ (?:score|price|traffic)s?
    |heute|morgen|gestern|jetzt|aktuell\w*|derzeit|momentan|neueste\w*
    |aujourd'hui|demain|hier|maintenant|actuellement|hoy|ma\u00f1ana|ayer|ahora|actualmente)\b""",
    re.IGNORECASE | re.VERBOSE,
)
# Each match of it has one of these words, or one that begins like them; few questions have any.
_TIME_WORDS = frozenset(
    re.findall(
        r"\S+",
        """today tonight tomorrow yesterday nowadays currently presently lately recently upcoming
        now moment time far as date day days ago this last next past coming previous latest
        newest recent current news weather forecast live heute morgen gestern jetzt derzeit momentan
        aujourd demain hier maintenant actuellement hoy ayer ahora actualmente""",
    )
)
_TIME_STEMS = ("aktuell", "neueste")
_LETTERS = re.compile("[a-z]+")
_ELECTRIC = re.compile(r"\b(?:alternating|direct|electric\w*|rated|leakage) current\b", re.I)
# What a company's records hold of one person; "our" is the company where it is none of these.
_RECORD = (
    r"(?:accounts?|balances?|orders?|invoices?|bills?|bookings?|reservations?|appointments?"
    r"|parcels?|packages?|deliver(?:y|ies)|shipments?|payments?|transfers?|transactions?|refunds?|claims?"
    r"|applications?|tickets?|subscriptions?|contracts?|flights?|luggage|results|statements?"
    r"|cases?)"
)
_OWN = rf"(?:my|mine|our (?=(?:\w+ ){{0,2}}?{_RECORD}\b))"
_SPENT = (
    r"(?:have|owe|spend|spent|used?|paid|pay|earn(?:ed)?|order(?:ed)?|book(?:ed)?|taken?|left|got"
    r"|bought|receive[d]?|miss(?:ed)?)\b(?! to\b)"
)
_BE = r"(?:is|are|was|were|will|does|did|do|has|have)"
_OTHERS = r"(?:(?!(?:i|we|if|when)\b)\w+ )"
_PERSONAL = (
    # "what is my ...", "how much was my ..."
    rf"(?:what|where|when|who|which|how (?:much|many|old|long|far|high)) {_OTHERS}{{0,4}}?{_BE}"
    rf" {_OTHERS}{{0,2}}?{_OWN}\b",
    # "how many days do I have left"
    r"(?:what|where|when|who|which|how (?:much|many|often|long))\b[^?.,]{0,60}? (?:am i\b"
    rf"|(?:do|did|have|had) (?:i|we) (?:(?:still|already|currently) )?{_SPENT})",
    # "has my order ...", "did I ..."
    rf"{_BE} {_OWN} ?(?:\w+ ){{0,3}}?{_RECORD}\b|is my\b|(?:has|have|did|was|were|am) (?:i|we)\b",
    # "show me my ...", "my balance"
    r"(?:show|tell|read|give|list|check|track|find|look up|open|display|get)(?: me| us| up)?"
    rf"(?: (?:all|the \w+ of|about))? {_OWN}\b",
    rf"{_OWN} ?(?:\w+ ){{0,3}}?(?:balance|status|history|usage|quota)\b",
    rf"(?:what|where|when|which)\b.* (?:status|state|progress|balance|history|amount) of {_OWN}\b",
    r"(?:who|where) am i\b",
)
_PERSONAL_QUESTION = re.compile(rf"{ASKING}(?:{'|'.join(_PERSONAL)})", re.IGNORECASE)


def scope_of(query: str) -> QuestionScope | None:
    """Returns why a question must be answered anew each time, or None where it need not.

    "How do I change my PIN?" has one answer for all; "what is my balance?" and "where is my order?"
    have not. It is judged by words alone, and rather too strictly: a question out of scope costs
    one computation.

    Args:
        query: The question in its normal form, at most 8,000 characters.
    """
    return _known_scope(query) if len(query) <= _LONGEST_KNOWN else _scope(query)


def _scope(query: str) -> QuestionScope | None:
    # No token is less than a character.
    is_long = len(query) > LONGEST_QUESTION_TOKENS
    if is_long and estimated_tokens(query) > LONGEST_QUESTION_TOKENS:
        return QuestionScope.TOO_LONG
    text = written_out(query)
    if _may_name_a_time(text) and _TIME_RELATIVE.search(_ELECTRIC.sub("", text)):
        return QuestionScope.TIME_RELATIVE
    if _PERSONAL_QUESTION.match(text):
        return QuestionScope.PERSONAL
    return QuestionScope.TIME_RELATIVE if asks_about_now(text) else None


def _may_name_a_time(text: str) -> bool:
    """Returns False only where a text is not relative to time; ten times as fast as to find out."""
    if not text.isascii():
        # Where case is ignored, some other letters pass for those of the words.
        return True
    text = text.lower()
    return not _TIME_WORDS.isdisjoint(_LETTERS.findall(text)) or any(
        stem in text for stem in _TIME_STEMS
    )


def scope_of_all(queries: Iterable[str]) -> QuestionScope | None:
    """Returns why the answer to a prompt must be computed anew each time, or None.

    The same prompt is the same question however long it is, and the words of a long text that is
    asked about say nothing of the question: such a one is not judged.

    Args:
        queries: The questions in it, each at most 8,000 characters.
    """
    scopes = map(scope_of, queries)
    return next((each for each in scopes if each not in (None, QuestionScope.TOO_LONG)), None)


def estimated_tokens(query: str) -> int:
    """Estimates the tokens of a text without a tokenizer: one per 4 letters begun."""
    return sum(-(-len(piece) // _CHARACTERS_PER_TOKEN) for piece in _PIECE.findall(query))


_known_scope = lru_cache(maxsize=_MOST_KNOWN)(_scope)
