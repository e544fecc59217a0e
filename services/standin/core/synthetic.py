"""The output of synthetic models: as long as it should be, and without any meaning.

A token is four characters, so that counts can be told from lengths: a word of an answer is a
blank and three letters. A prompt may say what the answer shall be:

    <<tokens=137>>              so many tokens of text
    <<thinking=12>>             so many tokens of thinking before it
    <<tool=name {"a": "b"}>>    a call of that tool instead of text
"""

import hashlib
import json
import math
import random
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHARACTERS_PER_TOKEN = 4
IMAGE_TOKENS = 256
MEDIAN_TOKENS = 130
"""Median length of an answer for which the prompt gives none."""

_LENGTH_SIGMA = 0.6
_WORDS_TEXT = """
the and for are but not you all any can had her was one our out day get has him his how man new
now old see two way who boy did its let put say she too use air bad big box car cut dry eye far few
"""
WORDS = tuple(f" {word}" for word in _WORDS_TEXT.split())
_TOKENS = re.compile(r"<<tokens=(\d{1,7})>>")
_THINKING = re.compile(r"<<thinking=(\d{1,7})>>")
_TOOL = re.compile(r"<<tool=([\w.-]+)\s*(.*?)>>", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What a model is going to say.

    Args:
        tokens: Tokens of text.
        thinking_tokens: Tokens of thinking before it.
        tool: A tool's name and the arguments to call it with, or None.
        seed: What its words depend on.
    """

    tokens: int
    thinking_tokens: int
    tool: tuple[str, Any] | None
    seed: int


def count_tokens(text: str) -> int:
    """Number of tokens of a text."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def read_script(text: str) -> Script:
    """Read the directives of a text; what it does not say is drawn from it."""
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
    tokens = _TOKENS.search(text)
    thinking = _THINKING.search(text)
    return Script(
        tokens=int(tokens[1]) if tokens else _draw_length(seed),
        thinking_tokens=int(thinking[1]) if thinking else 0,
        tool=_read_tool(text),
        seed=seed,
    )


def write_words(seed: int, tokens: int) -> list[str]:
    """So many tokens of text."""
    start = seed % len(WORDS)
    step = 1 + seed // len(WORDS) % (len(WORDS) - 1)
    return [WORDS[(start + index * step) % len(WORDS)] for index in range(tokens)]


def split_text(text: str) -> list[str]:
    """The tokens of a text."""
    return [
        text[begin : begin + CHARACTERS_PER_TOKEN]
        for begin in range(0, len(text), CHARACTERS_PER_TOKEN)
    ]


def encode_ids(text: str) -> list[int]:
    """Token ids that `decode_ids` turns into the text again; one per four bytes."""
    data = text.encode()
    padded = data + b"\0" * (-len(data) % CHARACTERS_PER_TOKEN)
    return [int(number) for number in np.frombuffer(padded, "<u4").tolist()]


def decode_ids(ids: list[int]) -> str:
    """The text of the token ids of an earlier reply."""
    data = b"".join((number % 2**32).to_bytes(4, "little") for number in ids)
    return data.replace(b"\0", b"").decode(errors="replace")


def embed(text: str, dimensions: int) -> NDArray[np.float32]:
    """A vector of unit length that depends on nothing but the text."""
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
    vector = np.random.default_rng(seed).standard_normal(dimensions).astype(np.float32)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def _draw_length(seed: int) -> int:
    length = random.Random(seed).lognormvariate(math.log(MEDIAN_TOKENS), _LENGTH_SIGMA)
    return max(1, round(length))


def _read_tool(text: str) -> tuple[str, Any] | None:
    match = _TOOL.search(text)
    if match is None:
        return None
    try:
        arguments = json.loads(match[2] or "{}")
    except ValueError:
        return None
    return (match[1], arguments) if isinstance(arguments, dict) else None
