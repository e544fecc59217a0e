"""Estimating how many tokens a model makes of a text, without the model's tokeniser.

A run of letters costs about one token when it is short and more when it is long or of mixed case;
every mark of punctuation and every CJK character costs one. The constants were fitted to WordPiece
on library documentation, Markdown and Python source, where a token has 3.2 to 3.5 characters.
"""

import re
import string
from array import array
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate
from math import ceil

__all__ = ["TokenMeter", "estimate_tokens"]

_LATIN = r"[A-Za-z\u00c0-\u024f]+"
_DIGITS = r"[0-9]+"
_ALPHABET = r"[\u0370-\u0dff\u10a0-\u10ff\u1200-\u167f\u1681-\u16ff\u1e00-\u1fff]+"
_PIECE = re.compile(rf"({_LATIN}|{_DIGITS}|{_ALPHABET}|\S)")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")
_LETTER = re.compile(f"{_LATIN}|{_ALPHABET}")
_LATIN_RUN, _DIGITS_RUN, _ALPHABET_RUN = map(re.compile, (_LATIN, _DIGITS, _ALPHABET))

_ALPHABET_TOKENS_PER_CHARACTER = 0.8
_DIGIT_TOKENS_PER_CHARACTER = 0.5
# Longer runs of letters are encoded data rather than names.
_LONGEST_NAME = 16
_ENCODED_TOKENS_PER_CHARACTER = 0.5
# So much of a text is cut into pieces at a time; each takes much more memory than in the text.
_STRETCH_CHARACTERS = 16 * 1024
_MOST_KNOWN_PIECES = 20_000
_MOST_KNOWN_PARAGRAPHS = 2048
_LONGEST_KNOWN_PARAGRAPH = 4000


def _alone(kept: str) -> bytes:
    """Returns a table that has nothing but these characters left, and spaces for all others."""
    return bytes(code if chr(code) in kept else 32 for code in range(256))


_LETTERS_ALONE, _DIGITS_ALONE = _alone(string.ascii_letters), _alone(string.digits)
# What counts nothing, or as a part of a run; each of all others counts one.
_UNCOUNTED = bytes(code for code in range(128) if chr(code).isspace() or chr(code).isalnum())


def estimate_tokens(text: str) -> int:
    """Returns the estimated number of model tokens, without the model's own special tokens."""
    # Costs have two decimals, and sums of such are off by less than this.
    return ceil(sum(map(_cost, text.split("\n\n"))) - 1e-9)


def _cost(paragraph: str) -> float:
    if len(paragraph) > _LONGEST_KNOWN_PARAGRAPH:
        return _cost_of(paragraph)
    return _known_cost(paragraph)


@lru_cache(maxsize=_MOST_KNOWN_PARAGRAPHS)
def _known_cost(paragraph: str) -> float:
    """Returns the cost of a paragraph, which is met again in the prompt it is chosen for."""
    return _cost_of(paragraph)


def _cost_of(text: str) -> float:
    # By kinds instead of piece by piece: every answer estimates all of its prompt.
    if text.isascii():
        return _cost_of_ascii(text.encode())
    beyond = "".join(_BEYOND_ASCII.findall(text))
    if _LETTER.search(beyond) is None:
        # Only signs, each of which counts one, as a question mark does; spaces count nothing.
        space_count = len(beyond) - len("".join(beyond.split()))
        return _cost_of_ascii(text.encode("ascii", "replace")) - space_count
    words = _LATIN_RUN.findall(text)
    total = sum(map(_costs.__getitem__, words))
    other_count = sum(map(len, text.split())) - sum(map(len, words))
    for run, cost in ((_DIGITS_RUN, _digits_cost), (_ALPHABET_RUN, _alphabet_cost)):
        for piece in run.findall(text):
            total += cost(len(piece))
            other_count -= len(piece)
    return total + other_count


def _cost_of_ascii(text: bytes) -> float:
    """Does the same for the commonest kind of text, in a quarter of the time."""
    words = text.translate(_LETTERS_ALONE).decode().split()
    digits = text.translate(_DIGITS_ALONE).split()
    total = sum(map(_costs.__getitem__, words))
    total += sum(_digits_cost(len(run)) for run in digits)
    return total + len(text.translate(None, _UNCOUNTED))


class TokenMeter:
    """Estimates any stretch of one text in logarithmic time.

    Args:
        text: The whole text.
    """

    def __init__(self, text: str) -> None:
        self._starts, self._ends = array("q"), array("q")
        self._totals = array("d", [0.0])
        position = 0
        while position < len(text):
            position = self._add(text, position)

    def _add(self, text: str, position: int) -> int:
        """Adds the pieces of a stretch; returns where the next stretch begins."""
        stretch = text[position : position + _STRETCH_CHARACTERS]
        # What is between the pieces, and the pieces, by turns.
        parts = _PIECE.split(stretch)
        if position + len(stretch) < len(text):
            # The last piece may go on.
            if len(parts) == 3 and not parts[0]:
                parts[1] = next(_PIECE.finditer(text, position))[0]
            else:
                del parts[max(len(parts) - 2, 1) :]
        places = list(accumulate(map(len, parts), initial=position))
        self._starts.extend(places[1:-1:2])
        self._ends.extend(places[2::2])
        totals = accumulate(map(_costs.__getitem__, parts[1::2]), initial=self._totals.pop())
        self._totals.extend(totals)
        return places[-1]

    def count(self, char_start: int, char_end: int) -> float:
        """Returns the estimated tokens of `text[char_start:char_end]`."""
        return self._before(char_end) - self._before(char_start)

    def _before(self, position: int) -> float:
        index = bisect_right(self._ends, position)
        total = self._totals[index]
        if index < len(self._starts) and self._starts[index] < position:
            start, end = self._starts[index], self._ends[index]
            share = (position - start) / (end - start)
            total += share * (self._totals[index + 1] - total)
        return total


def _word_cost(word: str) -> float:
    length = min(len(word), _LONGEST_NAME)
    if length < 3 or word.islower() or word[1:].islower() or word.isupper():
        cost = 1.1 + 0.18 * max(0, length - 5) + 0.3 * max(0, length - 11)
    else:
        cost = 1.0 + 0.27 * length
    return cost + _ENCODED_TOKENS_PER_CHARACTER * (len(word) - length)


def _piece_cost(piece: str) -> float:
    if _LATIN_RUN.match(piece):
        return _word_cost(piece)
    if _DIGITS_RUN.match(piece):
        return _digits_cost(len(piece))
    if _ALPHABET_RUN.match(piece):
        return _alphabet_cost(len(piece))
    return 1.0


def _digits_cost(length: int) -> float:
    return max(1.0, length * _DIGIT_TOKENS_PER_CHARACTER)


def _alphabet_cost(length: int) -> float:
    return max(1.0, length * _ALPHABET_TOKENS_PER_CHARACTER)


class _Costs(dict[str, float]):
    """Costs of pieces that have been met, for words come again and again."""

    def __missing__(self, piece: str) -> float:
        cost = _piece_cost(piece)
        if len(piece) <= _LONGEST_NAME:
            if len(self) >= _MOST_KNOWN_PIECES:
                self.clear()
            self[piece] = cost
        return cost


_costs = _Costs()
