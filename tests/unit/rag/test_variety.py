import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.rag.core.ranking.variety import DOCUMENT_LIMIT, choose_varied, spread_documents
from tests.kit.candidates import candidate, passage

DOCUMENTS = st.text("abc", max_size=20)


def ranking(documents: str):
    """One candidate for each letter, which names its document."""
    return [
        candidate(passage(number, f"text {number}", document_id=letter), 1 - number / 100)
        for number, letter in enumerate(documents, 1)
    ]


def spread(documents: str, places: int) -> str:
    found = spread_documents(ranking(documents), places=places)
    return "".join(each.passage.document_id for each in found)


def varied(relevance_weight_ratio: float, relevances: list[float], vectors, *, limit: int = 99):
    candidates = [
        candidate(passage(number, f"word{number} other"), relevance)
        for number, relevance in enumerate(relevances, 1)
    ]
    chosen = choose_varied(
        candidates, vectors, relevance_weight_ratio=relevance_weight_ratio, limit=limit
    )
    return [each.ranking.chunk_id for each in chosen]


def test_the_fourth_passage_of_a_document_comes_after_those_of_others() -> None:
    assert spread("aaaabbcc", 8) == "aaabbcca"


def test_a_document_with_most_of_the_places_keeps_them() -> None:
    assert spread("aaaaaabb", 8) == "aaaaaabb"
    assert spread("aaaa", 8) == "aaaa"


@given(DOCUMENTS, st.integers(1, 10))
def test_spreading_loses_nothing_and_leaves_the_best_where_it_is(
    documents: str, places: int
) -> None:
    found = list(spread_documents(ranking(documents), places=places))
    assert sorted(each.ranking.chunk_id for each in found) == list(range(1, len(documents) + 1))
    assert [each.ranking.chunk_id for each in found[:DOCUMENT_LIMIT]] == [1, 2, 3][: len(found)]


def test_what_is_like_a_chosen_one_gives_way_to_what_is_not() -> None:
    vectors = {1: np.array([1, 0], "f4"), 2: np.array([1, 0.01], "f4"), 3: np.array([0, 1], "f4")}
    assert varied(0.5, [0.9, 0.8, 0.5], vectors) == [1, 3, 2]
    assert varied(1.0, [0.9, 0.8, 0.5], vectors) == [1, 2, 3]


def test_words_are_compared_where_a_vector_is_missing_or_zero() -> None:
    vectors = {1: np.array([1, 0], "f4"), 2: np.zeros(2, "f4")}
    assert varied(0.5, [0.9, 0.8, 0.5], vectors) == [1, 2, 3]


@given(
    st.lists(st.floats(0, 1), max_size=6).map(lambda scores: sorted(scores, reverse=True)),
    st.floats(0, 1),
    st.integers(0, 8),
    st.randoms(use_true_random=False),
)
def test_the_best_comes_first_and_nothing_comes_twice(relevances, weight, limit, rng) -> None:
    vectors = {
        number: np.array([rng.uniform(-1, 1), rng.uniform(-1, 1)], "f4") for number in range(1, 6)
    }
    chosen = varied(weight, relevances, vectors, limit=limit)
    assert len(chosen) == len(set(chosen)) == min(limit, len(relevances))
    assert chosen[:1] == ([1] if chosen else [])
