"""The real embedding model, in process: vectors of texts without a server."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from services.standin.core.minilm import CONTEXT_TOKENS, Floats, MiniLM
from services.standin.core.safetensors import map_tensors
from services.standin.core.tokens import SEP, TokenCodec
from services.standin.server import find_weights

# Texts that are computed in one go; more of them hardly raise the rate.
_BATCH_TEXTS = 64


class Embedder:
    """all-MiniLM-L6-v2.

    Raises:
        FileNotFoundError: The package with its weights is not installed.
    """

    def __init__(self) -> None:
        folder = find_weights()
        self._codec = TokenCodec(folder / "tokenizer.json")
        self._encoder = MiniLM(map_tensors(folder / "model.safetensors"))

    def embed(self, texts: list[str]) -> Floats:
        """Returns vectors of unit length, one row each."""
        ids = [_cut(tokens) for tokens in self._codec.encode(texts)]
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
        rows = np.empty((len(ids), 384), np.float32)
        for begin in range(0, len(order), _BATCH_TEXTS):
            batch = order[begin : begin + _BATCH_TEXTS]
            rows[batch] = self._encoder.embed([ids[index] for index in batch])
        return rows


def embed_cached(texts: list[str], folder: Path) -> Floats:
    """Returns the texts' vectors, from a file in `folder` where they were computed before."""
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:24]
    path = folder / f"minilm-{digest}.npy"
    if path.exists():
        cached: Floats = np.load(path)
        return cached
    rows = Embedder().embed(texts)
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part.npy")
    np.save(unfinished, rows)
    unfinished.rename(path)
    return rows


def _cut(tokens: list[int]) -> list[int]:
    return tokens if len(tokens) <= CONTEXT_TOKENS else [*tokens[: CONTEXT_TOKENS - 1], SEP]
