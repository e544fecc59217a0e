"""The parts of a question that no other wording may change: numbers, names, identifiers, quotes."""

import re
import unicodedata

__all__ = ["foreign_numbers", "literals", "lost_names", "missing_literals", "numbers"]

_QUOTED = re.compile(
    r"\"([^\"\n]{1,200})\"|\u201c([^\u201d\n]{1,200})\u201d|\u201e([^\u201c\u201d\n]{1,200})[\u201c\u201d]"
    r"|\u00ab([^\u00bb\n]{1,200})\u00bb|`([^`\n]{1,200})`"
)
_WORD = re.compile(r"\d+(?:[.,:]\d+)+(?!\w)|[^\W_][\w\-./:+#@]*[\w+#]|\w")
_IDENTIFIER = re.compile(
    r"(?=.*[^\W\d_])(?:"
    r".*\d.*"  # holds a digit beside letters
    r"|.*[_@#:/].*"  # is joined as no word of prose is
    r"|.*[^\W_]\.[^\W_].*"
    r"|.*[a-z][A-Z].*"  # camelCase
    r"|[A-Z]{2,}s?"  # an acronym
    r")"
)
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_GROUPS = re.compile(r"(?<=\d),(?=\d{3}(?:\D|$))")
_NAME = re.compile(r"[A-Z\u00c0-\u00de][\w'\u2019-]+")
# Behind these, or behind nothing, a capital marks no name.
_SENTENCE_STARTS = ("", *".!?:;\u2026\"'(\u201c\u201e")
_LEAST_STEM_CHARACTERS = 3


def numbers(text: str) -> frozenset[str]:
    """Returns the numbers of a text, written one way."""
    plain = _GROUPS.sub("", unicodedata.normalize("NFKC", text))
    return frozenset(each.replace(",", ".") for each in _NUMBER.findall(plain))


def foreign_numbers(text: str, *sources: str) -> frozenset[str]:
    """Returns the numbers of a text that none of its sources holds."""
    return numbers(text) - frozenset().union(*map(numbers, sources))


def literals(text: str) -> tuple[str, ...]:
    """Returns quoted parts, identifiers and numbers, in the order they stand in."""
    quoted = [(each.start(), each[0]) for each in _QUOTED.finditer(text)]
    unquoted = _QUOTED.sub(lambda each: " " * len(each[0]), text)
    words = [
        (each.start(), each[0])
        for each in _WORD.finditer(unquoted)
        if _IDENTIFIER.fullmatch(each[0]) or _NUMBER.search(each[0])
    ]
    return tuple(dict.fromkeys(text for _, text in sorted([*quoted, *words])))


def missing_literals(question: str, wording: str) -> tuple[str, ...]:
    """Returns what a wording of a question has lost of its literals."""
    plain = _folded(wording)
    return tuple(each for each in literals(question) if _folded(_bare(each)) not in plain)


def lost_names(question: str, wording: str) -> tuple[str, ...]:
    """Returns the capitalised words inside of a question's sentences that a wording has not.

    A word may have another ending: in German every noun has a capital, and cases.
    """
    plain = _folded(wording)
    return tuple(
        each[0]
        for each in _NAME.finditer(question)
        if question[: each.start()].rstrip()[-1:] not in _SENTENCE_STARTS
        and _folded(each[0])[: max(_LEAST_STEM_CHARACTERS, len(each[0]) - 2)] not in plain
    )


def _bare(literal: str) -> str:
    return literal.strip('"`\u201c\u201d\u201e\u00ab\u00bb')


def _folded(text: str) -> str:
    return _GROUPS.sub("", unicodedata.normalize("NFKC", text)).casefold()
