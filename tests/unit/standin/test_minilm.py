"""The forward pass against a plain one, against published similarities, and against itself."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.standin.core.minilm import DIMENSIONS, MiniLM, double_gelu
from services.standin.core.safetensors import map_tensors
from services.standin.core.tokens import TokenCodec
from services.standin.server import find_weights

FOLDER = find_weights()
TENSORS = map_tensors(FOLDER / "model.safetensors")
ENCODER = MiniLM(TENSORS)
CODEC = TokenCodec(FOLDER / "tokenizer.json")

erf = np.vectorize(math.erf)


def embed(*texts):
    return ENCODER.embed(CODEC.encode(list(texts)))


def plain_embedding(ids, tensors=TENSORS):
    """BERT as its paper writes it: float64, one text, a loop over layers and heads."""

    def parameter(name):
        return tensors[name].astype(np.float64)

    def linear(rows, name):
        return rows @ parameter(f"{name}.weight").T + parameter(f"{name}.bias")

    def norm(rows, name):
        centred = rows - rows.mean(axis=1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-12)
        return centred / deviation * parameter(f"{name}.weight") + parameter(f"{name}.bias")

    words = tensors["embeddings.word_embeddings.weight"]
    positions = tensors["embeddings.position_embeddings.weight"]
    types = tensors["embeddings.token_type_embeddings.weight"]
    rows = np.array(
        [words[word].astype(np.float64) + positions[at] + types[0] for at, word in enumerate(ids)]
    )
    rows = norm(rows, "embeddings.LayerNorm")
    for number in range(6):
        layer = f"encoder.layer.{number}"
        query = linear(rows, f"{layer}.attention.self.query")
        key = linear(rows, f"{layer}.attention.self.key")
        value = linear(rows, f"{layer}.attention.self.value")
        heads = []
        for head in range(12):
            columns = slice(32 * head, 32 * (head + 1))
            scores = np.exp(query[:, columns] @ key[:, columns].T / math.sqrt(32))
            heads.append(scores / scores.sum(axis=1, keepdims=True) @ value[:, columns])
        attended = linear(np.concatenate(heads, axis=1), f"{layer}.attention.output.dense")
        rows = norm(rows + attended, f"{layer}.attention.output.LayerNorm")
        inner = linear(rows, f"{layer}.intermediate.dense")
        inner = inner * 0.5 * (1 + erf(inner / math.sqrt(2)))
        rows = norm(rows + linear(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    mean = rows.mean(axis=0)
    return mean / np.linalg.norm(mean)


@pytest.mark.parametrize(
    "text",
    ["", "a", "How do I read a file line by line?", "naïve Zürich 東京 🙂", "word " * 200],
)
def test_a_vector_equals_the_plain_forward_pass(text):
    [ids] = CODEC.encode([text])
    assert float(embed(text)[0].astype(np.float64) @ plain_embedding(ids)) > 0.99999


def test_a_batch_of_mixed_lengths_equals_the_plain_forward_pass_text_by_text():
    texts = ["one", "two words", "a much longer text with many more words in it", "x " * 150]
    for vector, ids in zip(embed(*texts), CODEC.encode(texts), strict=True):
        assert float(vector.astype(np.float64) @ plain_embedding(ids)) > 0.99999


def test_attention_scores_beyond_the_range_of_exp_are_handled():
    query = "encoder.layer.3.attention.self.query.weight"
    [ids] = CODEC.encode(["Attention scores may become large in other models than this one."])
    tensors = TENSORS | {query: TENSORS[query] * 40}
    [vector] = MiniLM(tensors).embed([ids])
    assert float(vector.astype(np.float64) @ plain_embedding(ids, tensors)) > 0.9999


def test_similarities_equal_those_published():
    """Figures of the Sentence Transformers documentation, page "Semantic Textual Similarity"."""
    first = embed("The new movie is awesome", "The cat sits outside", "A man is playing guitar")
    second = embed("The dog plays in the garden", "The new movie is so great", "A woman watches TV")
    published = [[0.0543, 0.8939, -0.0502], [0.2838, -0.0029, 0.1310], [0.2277, -0.0136, -0.0327]]
    np.testing.assert_allclose(first @ second.T, published, atol=1e-4)


def test_similarities_equal_those_of_the_published_quickstart():
    """Figures of the Sentence Transformers documentation, page "Quickstart"."""
    vectors = embed(
        "The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."
    )
    published = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    np.testing.assert_allclose(vectors @ vectors.T, published, atol=1e-4)


def test_gelu_is_exact_to_a_millionth():
    values = np.linspace(-15, 15, 30_001, dtype=np.float32)
    exact = values.astype(np.float64)
    exact = exact * 0.5 * (1 + erf(exact / math.sqrt(2)))
    doubled = values.copy()
    double_gelu(doubled, np.empty_like(values), np.empty_like(values))
    assert np.abs(doubled / 2 - exact).max() < 1e-6


@settings(max_examples=10)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=5))
def test_a_vector_does_not_depend_on_its_batch_and_has_unit_length(texts):
    batch = embed(*texts)
    assert batch.shape == (len(texts), DIMENSIONS)
    np.testing.assert_allclose(np.linalg.norm(batch, axis=1), 1, atol=1e-5)
    for text, vector in zip(texts, batch, strict=True):
        np.testing.assert_allclose(embed(text)[0], vector, atol=2e-5)


def test_weights_are_mapped_and_cannot_be_written():
    weight = TENSORS["encoder.layer.0.output.dense.weight"]
    assert weight.shape == (384, 1536)
    assert not weight.flags.writeable
    assert not weight.flags.owndata


def test_a_tensor_of_another_type_is_refused(tmp_path):
    header = b'{"t":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
    path = tmp_path / "other.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(ValueError, match="BF16"):
        map_tensors(path)
