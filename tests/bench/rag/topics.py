"""Documents and questions whose vectors are known without a model.

Every section of a document, and every question, holds one mark such as `qa12b345`: an item of a
topic. Its vector is the topic's centre with noise of its own, so that there is something to find.
"""

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

__all__ = [
    "DIMENSION",
    "TOPIC_COUNT",
    "Document",
    "documents",
    "mark_of",
    "question",
    "vector_of",
    "vectors_of",
]

DIMENSION = 384
TOPIC_COUNT = 500
SECTION_COUNT = 50

_MARK = re.compile(r"qa(\d+)b(\d+)")
_NOISE_RATIO = 1.2
_WORD_COUNT = 90
_VOCABULARY_SIZE = 20_000
# The most frequent words; no question keeps such.
_STOP_WORD_COUNT = 50
_SYLLABLES = [a + b for a in "bcdfghklmnprstvz" for b in "aeiou"]


@dataclass(frozen=True, slots=True)
class Document:
    """A document of several sections, each of which becomes one chunk.

    Attributes:
        document_id: Its id.
        tag: One of a hundred.
        marks: Those of its sections.
        text: Markdown.
    """

    document_id: str
    tag: str
    marks: tuple[str, ...]
    text: str


def documents(chunk_count: int, *, prefix: str = "doc", seed: int = 1) -> Iterator[Document]:
    """Makes documents that have so many chunks together."""
    generator = random.Random(seed)
    for number in range(chunk_count // SECTION_COUNT):
        marks = tuple(
            f"qa{generator.randrange(TOPIC_COUNT)}b{seed}{number:05}{section:02}"
            for section in range(SECTION_COUNT)
        )
        sections = "\n\n".join(
            f"## Section {mark}\n\n{_prose(_WORD_COUNT, generator)}" for mark in marks
        )
        text = f"# {prefix} {number}\n\n{sections}\n"
        yield Document(f"{prefix}-{number}", f"tag-{number % 100:02}", marks, text)


def question(number: int, *, word_count: int = 6) -> str:
    """Makes a question about one topic."""
    generator = random.Random(-number - 1)
    mark = f"qa{generator.randrange(TOPIC_COUNT)}b9{number:09}"
    return f"{_prose(word_count, generator, first_rank=_STOP_WORD_COUNT)[:-1]} {mark}?"


def mark_of(text: str) -> str:
    """Returns the mark of a text; empty where it holds none."""
    match = _MARK.search(text)
    return match[0] if match else ""


def vector_of(text: str) -> np.ndarray:
    """Returns the vector of a text: that of its mark, else one of its own."""
    match = _MARK.search(text)
    if match is None:
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        vector = _noise(int.from_bytes(digest, "big"))
    else:
        vector = _centre(int(match[1])) + _NOISE_RATIO * _noise(int(match[2]))
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def vectors_of(texts: Sequence[str]) -> np.ndarray:
    """Returns the vectors of texts, one row each."""
    return np.stack([vector_of(text) for text in texts])


@lru_cache(TOPIC_COUNT)
def _centre(topic: int) -> np.ndarray:
    return _noise(10**12 + topic)


def _noise(seed: int) -> np.ndarray:
    return np.random.Generator(np.random.SFC64(seed)).standard_normal(DIMENSION)


def _prose(count: int, generator: random.Random, *, first_rank: int = 1) -> str:
    # Word frequencies fall as one over the rank, as in any language.
    spread = _VOCABULARY_SIZE / first_rank
    ranks = [int(first_rank * spread ** generator.random()) for _ in range(count)]
    return " ".join(_word(rank) for rank in ranks) + "."


@lru_cache(_VOCABULARY_SIZE)
def _word(rank: int) -> str:
    generator = random.Random(rank)
    return "".join(generator.choices(_SYLLABLES, k=2 + rank % 3))
