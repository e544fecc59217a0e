"""A question's text as tokens: words, numbers, units, dates, code, and borders of clauses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache

from services.cache.core.semantic.calendar_words import MONTHS, WEEKDAYS, time_of_day
from services.cache.core.semantic.inflection import base_form
from services.cache.core.semantic.quantities import UNITS, written_number

__all__ = [
    "BORDER",
    "CODE",
    "DATE",
    "NUMBER",
    "ORDINAL",
    "UNIT",
    "WORD",
    "Kind",
    "Token",
    "tokenize",
]


class Kind(Enum):
    """What a token is."""

    WORD = auto()
    NUMBER = auto()
    ORDINAL = auto()
    UNIT = auto()
    DATE = auto()
    CODE = auto()
    BORDER = auto()


# Looking a member up in its class is a call each time, and each token is asked for its kind often.
WORD, NUMBER, ORDINAL, UNIT = Kind.WORD, Kind.NUMBER, Kind.ORDINAL, Kind.UNIT
DATE, CODE, BORDER = Kind.DATE, Kind.CODE, Kind.BORDER


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a question.

    Attributes:
        kind: What it is.
        text: Its normal spelling: a word's base form, a number without separators.
        is_name: Whether it is written like a name or an identifier.
    """

    kind: Kind
    text: str
    is_name: bool = False


# Most plain words are ones that were read before; at most 4 MiB.
_MOST_KNOWN = 8192

_BORDER = Token(BORDER, ",")
# Plain words come first because most tokens are such: letters up to a blank are nothing else, and
# no token begins with the blank, which is taken with them.
_PATTERN = re.compile(
    r"""(?P<plain>[A-Za-z]{1,32}+)(?:\s+|\Z)
    |(?P<quote>"[^"]+"|\u201c[^\u201d]+\u201d|`[^`]+`|(?<![\w'])'[^']+'(?!\w))
    |(?P<address>(?:https?://|www\.)\S+[^\s.,;:!?)]|[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+)
    |(?P<path>(?<![\w/])(?:~|\.{1,2})?(?:/[\w.@-]+)+/?)
    |(?P<flag>(?<![\w-])--?[A-Za-z][\w-]*)
    |(?P<isodate>\b\d{4}-\d{2}-\d{2}\b)
    |(?P<date>\b\d{1,2}[/.]\d{1,2}[/.]\d{2,4}\b)
    |(?P<time>\b\d{1,2}:\d{2}(?::\d{2})?(?:\s*[ap]\.?m\b\.?)?|\b\d{1,2}\s*[ap]\.?m\b\.?)
    |(?:(?P<currency>[$\u20ac\u00a3\u00a5\u20b9])\s?)?(?P<number>(?<![\w.])-?\d+/\d+|(?:(?<![\w)-])-)?(?<![A-Za-z_])
      \d+(?:[.,]\d+)*)(?P<suffix>[^\W\d_]+|%|\u00b0[CF]?)?
    |(?P<version>\b[vV]\d+(?:\.\d+)*\b)
    |(?P<word>\.?[^\W\d_](?:-(?=[^\W\d_]{3}))?(?:[\w]|[._](?=\w)|(?<=\w)'(?=[^\W\d_]))*(?:\+\+|\#)?)
    |(?P<slash>(?:(?<=\s)|(?<=^))/(?=\s|$)|(?<=\w)/(?=\s|$))
    |(?P<operator>[<>=!]=+|=>|->|[<>=+*/^|&~%@]+|(?<=\s)-(?=\s\d))
    |(?P<border>[,;:.!?()\[\]\u2013\u2014]|(?<=\s)-(?=\s))""",
    re.VERBOSE,
)
_ORDINAL_SUFFIXES = frozenset({"st", "nd", "rd", "th"})
_MULTIPLES = frozenset({"k", "mn", "bn"})
_IDENTIFIER = re.compile(r".*(?:\d|_|\w\.\w|[a-z][A-Z]|\+\+|#)")
_NAMES_LIKE_WORDS = frozenset({"us", "it", "who"})
# After these words a lone capital I counts.
_NUMBERED = frozenset(
    re.findall(
        r"\S+",
        """war type class part phase stage schedule tier level category grade factor title act
        volume chapter book article section schengen group""",
    )
)


def tokenize(text: str) -> list[Token]:
    """Returns the tokens of a text whose contractions are written out."""
    shouting = text.isupper()
    tokens: list[Token] = []
    for match in _PATTERN.finditer(text):
        kind = match.lastgroup
        if kind == "plain" and (word := match["plain"]).islower():
            tokens.append(_lower_case_word(word))
        elif kind in ("plain", "word"):
            tokens.append(_word(match[kind], match.start(), tokens, shouting=shouting))
        elif kind in ("number", "suffix"):
            tokens.extend(_quantity(match))
        elif kind in ("border", "slash"):
            tokens.append(_BORDER)
        elif kind == "isodate":
            year, month, day = match[0].split("-")
            tokens.extend(_date(f"m{int(month)}", str(int(day)), year))
        elif kind == "date":
            tokens.append(Token(DATE, match[0]))
        elif kind == "time":
            tokens.append(Token(DATE, time_of_day(match[0]) or match[0]))
        elif kind == "version":
            tokens.append(Token(NUMBER, match[0][1:]))
        elif kind == "quote":
            tokens.append(Token(CODE, match[0][1:-1].strip(), is_name=True))
        else:
            tokens.append(Token(CODE, match[0], is_name=True))
    return tokens


@lru_cache(maxsize=_MOST_KNOWN)
def _lower_case_word(word: str) -> Token:
    # It is the same wherever it stands, and the text it stands in does not shout.
    return _word(word, 0, [], shouting=False)


def _word(raw: str, start: int, before: list[Token], *, shouting: bool) -> Token:
    word = raw.casefold().removesuffix("'s").removesuffix("'")
    if word[1:2] == "-":
        word = word.replace("-", "", 1)
    has_case = (not shouting and raw[1:] != raw[1:].lower()) or (not shouting and raw[0].isupper())
    if _IDENTIFIER.match(raw):
        # Letter case tells identifiers apart, but not names that only carry a digit.
        return Token(CODE, raw if "_" in raw else word, is_name=True)
    if len(raw) == 1:
        return _letter(raw, start, before, shouting=shouting)
    if word in MONTHS and (word != "may" or (has_case and start)):
        return Token(DATE, f"m{MONTHS[word]}")
    if word in WEEKDAYS:
        return Token(DATE, f"w{WEEKDAYS[word]}")
    if word.endswith("s") and word[:-1] in WEEKDAYS:
        return Token(DATE, f"w{WEEKDAYS[word[:-1]]}")
    if raw.isupper() and not shouting:
        # "US", "IT" and "WHO" are names, although their letters are also other words.
        text = raw if word in _NAMES_LIKE_WORDS else base_form(word)
        return Token(WORD, text, is_name=True)
    return Token(WORD, base_form(word), is_name=has_case and start > 0)


def _letter(raw: str, start: int, before: list[Token], *, shouting: bool) -> Token:
    counts = bool(before) and before[-1].text in _NUMBERED
    if raw in "aI" or shouting or (raw == "A" and start == 0) or raw == "i":
        return Token(CODE, "I", is_name=True) if raw == "I" and counts else Token(WORD, raw.lower())
    return Token(CODE, raw.upper(), is_name=True)


def _quantity(match: re.Match[str]) -> Iterator[Token]:
    digits, suffix = match["number"], (match["suffix"] or "").casefold()
    unit = UNITS.get(match["currency"] or suffix)
    if suffix in _ORDINAL_SUFFIXES:
        yield Token(ORDINAL, digits)
        return
    if suffix and not unit and suffix not in _MULTIPLES:
        yield Token(CODE, digits + suffix, is_name=True)
        return
    number = written_number(digits.rstrip(".,"), is_amount=unit is not None)
    yield Token(NUMBER, number)
    if suffix in _MULTIPLES:
        yield Token(WORD, suffix)
    if unit:
        yield Token(UNIT, unit)


def _date(*parts: str) -> Iterator[Token]:
    return (Token(DATE, part) for part in parts)
