"""The forward pass of all-MiniLM-L6-v2 (a six-layer BERT encoder) in numpy.

The tokens of a batch are packed without padding for the linear layers, where nearly all of the
work is; attention runs per text. Measured against padded batches and against one text at a time,
packing is what keeps the matrix products at the machine's peak rate for mixed text lengths.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

DIMENSIONS = 384
"""Length of an embedding."""
CONTEXT_TOKENS = 256
"""Longest input, [CLS] and [SEP] included; the model was trained on no longer texts."""

_LAYERS = 6
_HEAD_WIDTH = 32
_LAYER_NORM_EPSILON = np.float32(1e-12)
# exp() of scores up to this size, and sums of `CONTEXT_TOKENS` of them, are normal float32.
_MAX_SAFE_SCORE = 80.0
_FEW_ROWS = 64
# Rows per matrix product of the feed-forward layers, enough for its full rate, and rows per step
# of the activation between them, few enough for its three arrays to stay in a 2 MB cache.
_PRODUCT_ROWS = 512
_ACTIVATION_ROWS = 64

# GELU(x) = x / 2 * (1 + erf(x / sqrt(2))), with erf(x / sqrt(2)) written as tanh(x * p(x ** 2)).
# p is a weighted least-squares fit of atanh(erf(x / sqrt(2))) / x on [0, 5.6], iterated towards
# the smallest maximal error of GELU; its leading coefficient is positive, so beyond that range
# tanh saturates as erf does. Error below 6e-7 in float32 (a test compares it with math.erf).
# The error function itself would cost numpy an exp and a division more per element.
_GELU = tuple(
    np.float32(coefficient)
    for coefficient in (
        7.978842684020933e-01,
        3.6334149132305565e-02,
        -3.302671107394951e-05,
        -5.5273384045106423e-05,
        3.974070416444824e-06,
        -1.3378317884667895e-07,
        1.813926835125823e-09,
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Linear:
    """A linear layer: `weight` is (outputs, inputs), `bias` is (outputs,)."""

    weight: Floats
    bias: Floats

    def multiply(self, rows: Floats, out: Floats | None = None) -> Floats:
        """The product without the bias.

        A few rows are the right-hand side, because the library repacks that side on each call: a
        question of ten tokens takes half the time.
        """
        if len(rows) > _FEW_ROWS:
            return np.matmul(rows, self.weight.T, out=out)
        product = (self.weight @ rows.T).T
        if out is None:
            return np.ascontiguousarray(product)
        out[...] = product
        return out

    def apply(self, rows: Floats, out: Floats | None = None) -> Floats:
        result = self.multiply(rows, out)
        result += self.bias
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class _LayerNorm:
    weight: Floats
    bias: Floats

    def apply(self, rows: Floats) -> None:
        """Normalise each row in place."""
        rows -= rows.mean(axis=1, keepdims=True)
        variance = np.einsum("ij,ij->i", rows, rows)
        variance *= np.float32(1 / rows.shape[1])
        variance += _LAYER_NORM_EPSILON
        np.sqrt(variance, out=variance)
        rows /= variance[:, None]
        rows *= self.weight
        rows += self.bias


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    query: _Linear
    key: _Linear
    value: _Linear
    attention_output: _Linear
    attention_norm: _LayerNorm
    intermediate: _Linear
    output: _Linear
    output_norm: _LayerNorm


def double_gelu(values: Floats, square: Floats, scratch: Floats) -> None:
    """Replace `values` by twice their GELU; the factor is taken out in the next linear layer.

    Args:
        values: Activations, any shape; changed in place.
        square: Working memory of the same shape.
        scratch: Working memory of the same shape.
    """
    np.multiply(values, values, out=square)
    np.multiply(square, _GELU[-1], out=scratch)
    for coefficient in _GELU[-2:0:-1]:
        scratch += coefficient
        scratch *= square
    scratch += _GELU[0]
    scratch *= values
    np.tanh(scratch, out=scratch)
    scratch += np.float32(1)
    values *= scratch


class MiniLM:
    """The encoder, over weights that it never copies.

    Args:
        tensors: The checkpoint's arrays by name, as `safetensors.map_tensors` returns them.
    """

    def __init__(self, tensors: dict[str, NDArray[Any]]) -> None:
        def linear(name: str) -> _Linear:
            return _Linear(weight=tensors[f"{name}.weight"], bias=tensors[f"{name}.bias"])

        def norm(name: str) -> _LayerNorm:
            return _LayerNorm(weight=tensors[f"{name}.weight"], bias=tensors[f"{name}.bias"])

        self._words: Floats = tensors["embeddings.word_embeddings.weight"]
        self._positions: Floats = (
            tensors["embeddings.position_embeddings.weight"][:CONTEXT_TOKENS]
            + tensors["embeddings.token_type_embeddings.weight"][0]
        )
        self._embedding_norm = norm("embeddings.LayerNorm")
        self._layers = [
            _Layer(
                query=linear(f"{prefix}.attention.self.query"),
                key=linear(f"{prefix}.attention.self.key"),
                value=linear(f"{prefix}.attention.self.value"),
                attention_output=linear(f"{prefix}.attention.output.dense"),
                attention_norm=norm(f"{prefix}.attention.output.LayerNorm"),
                intermediate=linear(f"{prefix}.intermediate.dense"),
                output=linear(f"{prefix}.output.dense"),
                output_norm=norm(f"{prefix}.output.LayerNorm"),
            )
            for prefix in (f"encoder.layer.{number}" for number in range(_LAYERS))
        ]

    def embed(self, texts: list[list[int]]) -> Floats:
        """Embed a batch of tokenised texts.

        Args:
            texts: Token ids per text, with [CLS] and [SEP], 1 to `CONTEXT_TOKENS` each.

        Returns:
            Shape (texts, 384): the mean of the last layer's token vectors, of unit length.
        """
        lengths = [len(text) for text in texts]
        ends = np.cumsum(lengths).tolist()
        spans = [slice(end - length, end) for length, end in zip(lengths, ends, strict=True)]
        hidden = self._words[np.concatenate([np.asarray(text, np.intp) for text in texts])]
        for span, length in zip(spans, lengths, strict=True):
            hidden[span] += self._positions[:length]
        self._embedding_norm.apply(hidden)
        for layer in self._layers:
            mixed = _attend(layer, hidden, spans)
            hidden += layer.attention_output.apply(mixed)
            layer.attention_norm.apply(hidden)
            _feed_forward(layer, hidden)
            layer.output_norm.apply(hidden)
        pooled = np.stack([hidden[span].mean(axis=0) for span in spans])
        pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
        return pooled


def _attend(layer: _Layer, hidden: Floats, spans: list[slice]) -> Floats:
    """Multi-head attention of every text over its own tokens.

    One head at a time: its weights (200 kB at 220 tokens) stay in the cache through the softmax.
    """
    query = layer.query.apply(hidden)
    query *= np.float32(_HEAD_WIDTH**-0.5)
    key = layer.key.apply(hidden)
    value = layer.value.apply(hidden)
    mixed = np.empty_like(hidden)
    for span in spans:
        tokens = span.stop - span.start
        weights = np.empty((tokens, tokens), np.float32)
        ones = np.ones((tokens, 1), np.float32)
        for column in range(0, DIMENSIONS, _HEAD_WIDTH):
            head = (span, slice(column, column + _HEAD_WIDTH))
            np.matmul(query[head], key[head].T, out=weights)
            # Only scores that would overflow or vanish need the maximum taken out first.
            if max(weights.max(), -weights.min()) > _MAX_SAFE_SCORE:
                weights -= weights.max(axis=1, keepdims=True)
            np.exp(weights, out=weights)
            # The product with ones sums the rows; it is faster than a reduction.
            np.divide(weights @ value[head], weights @ ones, out=mixed[head])
    return mixed


def _feed_forward(layer: _Layer, hidden: Floats) -> None:
    """Add the two-layer perceptron of each row to it, block by block to stay in the cache."""
    width = layer.intermediate.bias.shape[0]
    block = np.empty((min(_PRODUCT_ROWS, len(hidden)), width), np.float32)
    square, scratch = np.empty((2, _ACTIVATION_ROWS, width), np.float32)
    for begin in range(0, len(hidden), _PRODUCT_ROWS):
        rows = hidden[begin : begin + _PRODUCT_ROWS]
        inner = layer.intermediate.apply(rows, out=block[: len(rows)])
        for start in range(0, len(rows), _ACTIVATION_ROWS):
            part = inner[start : start + _ACTIVATION_ROWS]
            double_gelu(part, square[: len(part)], scratch[: len(part)])
        change = layer.output.multiply(inner)
        change *= np.float32(0.5)
        change += layer.output.bias
        rows += change
