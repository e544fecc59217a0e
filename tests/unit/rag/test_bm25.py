from math import inf, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rag.core.bm25 import (
    K1,
    inverse_document_frequency,
    score_bound,
    score_chunks,
    term_weight,
)
from services.rag.core.documents import TermFrequencies
from services.rag.core.passages import TermStatistics


def test_scores_follow_the_formula_of_a_worked_example() -> None:
    chunks = {
        1: TermFrequencies({"cat": 2, "dog": 1}, 3),
        2: TermFrequencies({"dog": 1}, 1),
        3: TermFrequencies({"eel": 2}, 2),
    }
    scores = score_chunks(["cat", "dog", "cat"], chunks)
    idf_cat, idf_dog = log(1 + 2.5 / 1.5), log(1 + 1.5 / 2.5)
    first = idf_cat * 2 * 2.5 / (2 + 1.5 * (0.25 + 0.75 * 1.5)) + idf_dog * 2.5 / (
        1 + 1.5 * (0.25 + 0.75 * 1.5)
    )
    second = idf_dog * 2.5 / (1 + 1.5 * (0.25 + 0.75 * 0.5))
    assert scores == pytest.approx({1: first, 2: second})


def test_an_empty_collection_scores_nothing() -> None:
    assert score_chunks(["cat"], {}) == {}


@given(st.integers(1, 10**6), st.data())
def test_idf_is_positive_and_falls_with_frequency(chunk_count: int, data: st.DataObject) -> None:
    frequency = data.draw(st.integers(0, chunk_count - 1))
    rare = inverse_document_frequency(chunk_count, frequency)
    assert rare > inverse_document_frequency(chunk_count, frequency + 1) > 0


@given(st.integers(1, 10**4), st.integers(1, 10**4), st.floats(1, 10**4, exclude_max=True))
def test_term_weight_saturates(frequency: int, length: int, average: float) -> None:
    weight = term_weight(frequency, length, average)
    assert 0 < weight < K1 + 1
    assert term_weight(frequency + 1, length, average) > weight
    assert term_weight(frequency, length + 1, average) < weight < inf


def test_no_score_exceeds_the_bound() -> None:
    chunks = {n: TermFrequencies({"cat": 50 + n, "dog": 1}, 51 + n) for n in range(9)}
    statistics = TermStatistics(
        chunk_count=9, average_length=55, document_frequencies={"cat": 9, "dog": 9}
    )
    top = max(score_chunks(["cat", "dog"], chunks).values())
    assert 0 < top < score_bound(["cat", "dog", "dog"], statistics)
