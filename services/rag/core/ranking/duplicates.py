"""Leaving out passages that say what a better one says in the same words.

Two texts are near duplicates when they share most of their runs of three words and hold the same
numbers and identifiers. Embeddings are not asked: they hardly tell the report of one year from that
of the next.
"""

import string
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import filterfalse

from services.rag.core.ranking.candidate import Candidate

__all__ = ["Shingles", "without_near_duplicates"]

LEAST_SIMILARITY_RATIO = 0.8
"""Jaccard similarity of the shingles from which on two texts are near duplicates."""

# With fewer words in common, two texts cannot have so many runs in common.
_LEAST_SHARED_WORDS_RATIO = 0.6

_SHINGLE_WORDS = 3
_SEPARATORS = str.maketrans(dict.fromkeys(string.punctuation, " "))
# The same for plain text, and in lower case.
_LOWERED_WORDS = bytes(
    ord(" ") if chr(code) in string.punctuation else ord(chr(code).lower()) for code in range(128)
) + bytes(range(128, 256))
# From here on letters are mostly written without spaces between words.
_FIRST_UNSPACED = "\u0e00"


class Shingles:
    """What a text is compared by.

    Args:
        text: The text.
    """

    def __init__(self, text: str) -> None:
        self._words = _words(text)
        self._vocabulary = frozenset(self._words)
        self._marks = frozenset(filterfalse(str.isalpha, self._vocabulary))

    @cached_property
    def _runs(self) -> frozenset[tuple[str, ...]]:
        words = self._words
        runs = zip(*(words[start:] for start in range(_SHINGLE_WORDS)), strict=False)
        return frozenset(runs) or frozenset({tuple(words)})

    def similarity_ratio(self, other: "Shingles") -> float:
        """Returns the Jaccard similarity of two texts, 0 to 1."""
        shared = len(self._runs & other._runs)
        return shared / (len(self._runs) + len(other._runs) - shared)

    def says_the_same(self, other: "Shingles") -> bool:
        """Says whether one of two texts can stand for both."""
        if self._marks != other._marks:
            return False
        # Much cheaper than runs, and sorts out nearly all pairs.
        shared = len(self._vocabulary & other._vocabulary)
        most = max(len(self._vocabulary), len(other._vocabulary))
        if shared < _LEAST_SHARED_WORDS_RATIO * most:
            return False
        return self.similarity_ratio(other) >= LEAST_SIMILARITY_RATIO


def without_near_duplicates(candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    """Leaves out each candidate that says the same as a better one.

    Each is compared when it is asked for: the last ones are seldom needed.

    Args:
        candidates: Best first.
    """
    kept: list[Shingles] = []
    for candidate in candidates:
        own = Shingles(candidate.passage.text)
        if not any(own.says_the_same(other) for other in kept):
            kept.append(own)
            yield candidate


def _words(text: str) -> list[str]:
    if text.isascii():
        return text.encode().translate(_LOWERED_WORDS).decode().split()
    words = text.lower().translate(_SEPARATORS).split()
    pieces: list[str] = []
    for word in words:
        if max(word) < _FIRST_UNSPACED:
            pieces.append(word)
        else:
            pieces.extend(word)
    return pieces
