"""Pairs of BANKING77's questions with different labels, read one by one.

The labels differ for the same words now and then, so a pair of questions that shares an answer
and has two labels was read: do both ask for the same? `tests/quality/banking77_readings.tsv` names
each such pair by digests of its questions, which are the data set's own and not copied here, and
says what tells them apart; nothing where they ask for the same."""

import csv
import hashlib

from tests.bench.cache.quality_sets import QUALITY_FOLDER

__all__ = ["Readings", "name_of", "readings"]

_DIGEST_BYTES = 8

Readings = dict[frozenset[str], str]
"""What tells the questions of a pair apart, by their names; empty where nothing does."""


def name_of(question: str) -> str:
    """Returns what a question is called in the list."""
    text = " ".join(question.split())
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()


def readings() -> Readings:
    """Reads the list."""
    path = QUALITY_FOLDER / "banking77_readings.tsv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        next(rows)
        return {frozenset((one, other)): difference for one, other, difference in rows}
