"""The analyser that ingest and query share: text to index terms.

Identifiers are kept whole and also split (camelCase, snake_case, dotted, hyphenated), numbers are
written one way, words are stemmed, and scripts written without spaces become character bigrams.
Terms hold word characters and joiners only, so no control character ever reaches the store.

A document is stemmed in its own language and a question in each language of the collection, so
that both meet whatever the languages are.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

import Stemmer

from services.rag.core.documents import Chunk, TermFrequencies
from services.rag.core.stop_words import stop_words_of

__all__ = [
    "MAX_QUERY_LANGUAGES",
    "MAX_TERM_CHARACTERS",
    "VERSION",
    "analyse_chunks",
    "analyse_document",
    "analyse_query",
]

VERSION = 2
"""Grows whenever the same text would give other terms: the index must then be rebuilt."""

MAX_TERM_CHARACTERS = 64

MAX_QUERY_LANGUAGES = 4
"""In so many languages a question is stemmed; each makes it longer."""

_DEFAULT_LANGUAGE = "en"
# Each word of a title or heading counts as so many words of the text.
_HEADER_WEIGHT = 2

# Snowball algorithms by ISO 639-1 code.
_ALGORITHMS = {
    "ar": "arabic", "ca": "catalan", "cs": "czech", "da": "danish", "de": "german", "el": "greek",
    "en": "english", "eo": "esperanto", "es": "spanish", "et": "estonian", "eu": "basque",
    "fa": "persian", "fi": "finnish", "fr": "french", "ga": "irish", "hi": "hindi",
    "hu": "hungarian", "hy": "armenian", "id": "indonesian", "it": "italian", "lt": "lithuanian",
    "nb": "norwegian", "ne": "nepali", "nl": "dutch", "nn": "norwegian", "no": "norwegian",
    "pl": "polish", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian",
    "st": "sesotho", "sv": "swedish", "ta": "tamil", "tr": "turkish", "yi": "yiddish",
}  # fmt: skip
# Languages of Latin script without an algorithm. In all others, Latin letters write mostly names
# and technical terms, and these are stemmed as English.
_LATIN_UNSTEMMED = frozenset(
    ["af", "az", "bs", "cy", "gl", "hr", "is", "lv", "ms", "mt", "sk", "sl", "sq", "sw", "uz", "vi"]
)
_OTHER_SCRIPTS = frozenset(["ar", "el", "fa", "hi", "hy", "ne", "ru", "ta", "yi"])

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
_ASCII_TOKEN = re.compile(r"\w+(?:[.'-]\w+)*", re.ASCII)
_INVISIBLE = re.compile(r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]")
_GROUPED_NUMBER = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
# Found much sooner than a whole number.
_GROUP = re.compile(r",\d{3}")
_JOINER = re.compile(r"[._-]+")
# What French, Italian and Catalan put before a vowel, as in "l'eau" and "dell'acqua".
_ELISION = re.compile(
    r"(?:[cdjlmnst]|qu|jusqu|lorsqu|puisqu|quoiqu|un|(?:a|da|de|ne|su|que)ll|quest)'(?=\w\w)", re.I
)
_MOST_KNOWN = 20_000
_LONGEST_KNOWN = 32
_MOST_KNOWN_STEMS = 8_000
_CASE_PART = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")


def analyse_document(text: str, *, language: str = _DEFAULT_LANGUAGE) -> TermFrequencies:
    """Returns the index terms of a text with their counts.

    Args:
        text: Any text; usually a chunk with its header line.
        language: ISO 639-1 code; empty where it is not known.
    """
    return _frequencies(_counts(text, language))


def analyse_chunks(
    chunks: Sequence[Chunk], *, language: str = _DEFAULT_LANGUAGE, head: str = ""
) -> tuple[TermFrequencies, ...]:
    """Returns the index terms of chunks: those of their text, and of what it stands under.

    Args:
        chunks: Chunks of one document.
        language: ISO 639-1 code of its language; empty where it is not known.
        head: How it begins, which says what the chunks after the first are about.
    """
    its_head = _counts(head, language)
    return tuple(_analyse_chunk(each, language, its_head) for each in chunks)


def _analyse_chunk(chunk: Chunk, language: str, head: Mapping[str, int]) -> TermFrequencies:
    counts = _counts(chunk.text, language)
    for term, count in _counts(chunk.header, language).items():
        counts[term] = counts.get(term, 0) + _HEADER_WEIGHT * count
    if chunk.ordinal:
        for term, count in head.items():
            counts[term] = counts.get(term, 0) + count
    return _frequencies(counts)


def _counts(text: str, language: str) -> dict[str, int]:
    surface = Counter(_surface_terms(text))
    counts: dict[str, int] = {}
    for term, count in zip(_stem(surface, language), surface.values(), strict=True):
        counts[term] = counts.get(term, 0) + count
    return counts


def _frequencies(counts: Mapping[str, int]) -> TermFrequencies:
    return TermFrequencies(counts, sum(counts.values()))


def analyse_query(text: str, *, languages: Sequence[str] = (_DEFAULT_LANGUAGE,)) -> tuple[str, ...]:
    """Returns the distinct terms to search for, in the order of the question.

    Stop words of the question's language are left out, unless nothing else would remain.

    Args:
        text: The question.
        languages: ISO 639-1 codes of the documents' languages, the most frequent first, empty
            where one is not known; those beyond `MAX_QUERY_LANGUAGES` are not considered.
    """
    considered = _distinct_languages(languages)
    surface = list(dict.fromkeys(_surface_terms(text)))
    ignored = stop_words_of(surface, considered)
    telling = [term for term in surface if term not in ignored] or surface
    stems = [_stem(telling, language) for language in considered]
    return tuple(dict.fromkeys(term for forms in zip(*stems, strict=True) for term in forms))


def _distinct_languages(languages: Sequence[str]) -> list[str]:
    known = dict.fromkeys(language or _DEFAULT_LANGUAGE for language in languages)
    return list(known)[:MAX_QUERY_LANGUAGES] or [_DEFAULT_LANGUAGE]


def _stem(terms: Iterable[str], language: str) -> list[str]:
    language = language or _DEFAULT_LANGUAGE
    stemmed = list(terms)
    for algorithm in _algorithms(language):
        known = _known_stems.get(algorithm)
        if known is None or len(known) >= _MOST_KNOWN_STEMS:
            known = _known_stems[algorithm] = {}
        if missing := [term for term in stemmed if term not in known]:
            # One stemmer per call: a shared one must not be used from several threads.
            known.update(zip(missing, Stemmer.Stemmer(algorithm).stemWords(missing), strict=True))
        stemmed = [known[term] for term in stemmed]
    return stemmed


_known_stems: dict[str, dict[str, str]] = {}


def _algorithms(language: str) -> Iterator[str]:
    """Yields what stems a language: its own algorithm, and English beside another script."""
    if language in _ALGORITHMS:
        yield _ALGORITHMS[language]
    if language in _OTHER_SCRIPTS or language not in _LATIN_UNSTEMMED | _ALGORITHMS.keys():
        yield _ALGORITHMS[_DEFAULT_LANGUAGE]


def _surface_terms(text: str) -> Iterator[str]:
    if text.isascii():
        return chain.from_iterable(
            map(_known_terms.__getitem__, _ASCII_TOKEN.findall(_plain(text)))
        )
    # No term goes over the end of a line, and of a passage often only the header is not plain.
    return chain.from_iterable(map(_line_terms, text.split("\n")))


def _line_terms(line: str) -> Iterable[str]:
    if line.isascii():
        return _surface_terms(line)
    return _any_surface_terms(_INVISIBLE.sub("", unicodedata.normalize("NFKC", line)))


def _any_surface_terms(visible: str) -> Iterator[str]:
    for token in _TOKEN.finditer(_plain(visible)):
        if token.lastgroup == "unspaced":
            yield from _bigrams(token[0])
        else:
            yield from _known_terms[token[0]]


def _plain(text: str) -> str:
    if _GROUP.search(text) is None:
        return text
    return _GROUPED_NUMBER.sub(lambda number: number[0].replace(",", ""), text)


class _KnownTerms(dict[str, tuple[str, ...]]):
    """Terms of words that have been met, for words come again and again."""

    def __missing__(self, word: str) -> tuple[str, ...]:
        terms = tuple(_word_terms(word))
        if len(word) <= _LONGEST_KNOWN:
            if len(self) >= _MOST_KNOWN:
                self.clear()
            self[word] = terms
        return terms


_known_terms = _KnownTerms()


def _bigrams(run: str) -> Iterator[str]:
    if len(run) == 1:
        yield run
    for index in range(len(run) - 1):
        yield run[index : index + 2]


def _word_terms(token: str) -> Iterator[str]:
    word = token.strip("_").replace("\u2019", "'")
    word = word[elision.end() :] if (elision := _ELISION.match(word)) else word
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
