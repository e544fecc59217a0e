"""The analyser that ingest and query share: text to index terms.

Identifiers are kept whole and also split (camelCase, snake_case, dotted, hyphenated), numbers are
written one way, words are stemmed, and scripts written without spaces become character bigrams.
Terms hold word characters and joiners only, so no control character ever reaches the store.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator

import Stemmer

from services.rag.core.model import TermFrequencies
from services.rag.core.stop_words import ENGLISH_STOP_WORDS

__all__ = ["MAX_TERM_CHARACTERS", "VERSION", "analyse_document", "analyse_query"]

VERSION = 1
"""Grows whenever the same text would give other terms: the index must then be rebuilt."""

MAX_TERM_CHARACTERS = 64

# Scripts without spaces between words: Han, kana, Hangul, Thai, Lao, Myanmar, Khmer.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f"
)


def _mark_ranges() -> str:
    """Returns the combining marks as a regex class body; regex words leave them out."""
    ranges: list[list[int]] = []
    for code in range(0x300, 0x10000):
        if unicodedata.category(chr(code)) in ("Mn", "Mc"):
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"\\u{low:04x}-\\u{high:04x}" for low, high in ranges)


_WORD = rf"(?:(?![{_UNSPACED}])[\w{_mark_ranges()}])+"
_TOKEN = re.compile(rf"(?P<unspaced>[{_UNSPACED}]+)|{_WORD}(?:[.'\u2019-]{_WORD})*")
_INVISIBLE = re.compile(r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]")
_GROUPED_NUMBER = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_JOINER = re.compile(r"[._-]+")
_CASE_PART = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")


def analyse_document(text: str, *, language: str = "english") -> TermFrequencies:
    """Returns the index terms of a text with their counts.

    Args:
        text: Any text; usually a chunk with its header line.
        language: Snowball algorithm for stemming.

    Raises:
        KeyError: There is no such Snowball algorithm.
    """
    surface = Counter(_surface_terms(text))
    counts: Counter[str] = Counter()
    for term, count in zip(_stem(surface, language), surface.values(), strict=True):
        counts[term] += count
    return TermFrequencies(dict(counts), counts.total())


def analyse_query(text: str, *, language: str = "english") -> tuple[str, ...]:
    """Returns the distinct terms to search for, in the order of the question.

    English stop words are left out, unless nothing else would remain.

    Args:
        text: The question.
        language: Snowball algorithm for stemming; the one that was used for the documents.

    Raises:
        KeyError: There is no such Snowball algorithm.
    """
    surface = list(dict.fromkeys(_surface_terms(text)))
    telling = [term for term in surface if term not in ENGLISH_STOP_WORDS]
    return tuple(dict.fromkeys(_stem(telling or surface, language)))


def _stem(terms: Iterable[str], language: str) -> list[str]:
    # One stemmer per call: a shared one must not be used from several threads.
    stemmer = Stemmer.Stemmer(language)
    stemmed: list[str] = stemmer.stemWords(list(terms))
    return stemmed


def _surface_terms(text: str) -> Iterator[str]:
    visible = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    plain = _GROUPED_NUMBER.sub(lambda number: number[0].replace(",", ""), visible)
    for token in _TOKEN.finditer(plain):
        if token.lastgroup == "unspaced":
            yield from _bigrams(token[0])
        else:
            yield from _word_terms(token[0])


def _bigrams(run: str) -> Iterator[str]:
    if len(run) == 1:
        yield run
    for index in range(len(run) - 1):
        yield run[index : index + 2]


def _word_terms(token: str) -> Iterator[str]:
    word = token.strip("_").replace("\u2019", "'")
    if word.isalpha() and (word.islower() or word.istitle()):
        yield from _kept(word)
        return
    parts = [part for part in _JOINER.split(word) if part]
    if len(parts) > 1:
        yield from _kept(word)
    for part in parts:
        yield from _kept(part)
        pieces = _CASE_PART.findall(part) if _has_case_parts(part) else ()
        if len(pieces) > 1:
            for piece in pieces:
                yield from _kept(piece)


def _has_case_parts(part: str) -> bool:
    # A longer run is encoded data, not a name; an apostrophe joins one word.
    return len(part) <= MAX_TERM_CHARACTERS and "'" not in part


def _kept(word: str) -> Iterator[str]:
    """Yields the term for a word, or nothing for a lone Latin letter."""
    term = word[:MAX_TERM_CHARACTERS].casefold()[:MAX_TERM_CHARACTERS]
    if term.isdecimal():
        yield str(int(term))
    elif len(term) > 1 or term > "\u024f":
        yield term
