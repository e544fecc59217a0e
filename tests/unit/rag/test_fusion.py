import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rag.core.fusion import (
    FusionMethod,
    fuse,
    fuse_convex,
    fuse_reciprocal_ranks,
)
from services.rag.core.model import ScoredChunk


def hits(low: float, high: float) -> st.SearchStrategy[list[ScoredChunk]]:
    return st.dictionaries(st.integers(1, 12), st.floats(low, high), max_size=10).map(
        lambda scores: [ScoredChunk(key, score) for key, score in scores.items()]
    )


COSINES, BM25_SCORES = hits(-1, 1), hits(0, 50)
METHODS = st.sampled_from(FusionMethod)


def test_convex_fusion_weighs_normalised_scores() -> None:
    fused = fuse_convex(
        [ScoredChunk(1, 0.9), ScoredChunk(2, 0.7), ScoredChunk(3, 0.5)],
        [ScoredChunk(3, 10.0), ScoredChunk(4, 5.0)],
        vector_weight=0.4,
    )
    assert [each.chunk_id for each in fused] == [3, 1, 4, 2]
    # The lowest cosine counts 0; BM25 is measured from 0, not from the lowest hit.
    assert [each.score for each in fused] == pytest.approx([0.6, 0.4, 0.3, 0.2])


def test_reciprocal_ranks_are_summed_over_the_arms_that_have_the_chunk() -> None:
    fused = fuse_reciprocal_ranks(
        [ScoredChunk(1, 0.9), ScoredChunk(2, 0.8)], [ScoredChunk(2, 7.0)], k=60
    )
    assert [each.chunk_id for each in fused] == [2, 1]
    assert fused[0].score == pytest.approx((1 / 62 + 1 / 61) * 61 / 2)
    assert fused[1].score == pytest.approx(0.5)


def test_ranks_and_scores_of_each_arm_are_kept() -> None:
    (both, keyword_only) = fuse_convex(
        [ScoredChunk(1, 0.9)], [ScoredChunk(1, 3.0), ScoredChunk(2, 1.0)]
    )
    assert (both.vector_rank, both.vector_score) == (1, 0.9)
    assert (both.keyword_rank, both.keyword_score) == (1, 3.0)
    assert (keyword_only.vector_rank, keyword_only.vector_score) == (None, None)
    assert (keyword_only.keyword_rank, keyword_only.keyword_score) == (2, 1.0)


def test_ties_go_to_the_lower_chunk_id() -> None:
    tied = [ScoredChunk(9, 1.0), ScoredChunk(4, 1.0), ScoredChunk(7, 1.0)]
    assert [each.chunk_id for each in fuse_convex([], tied)] == [4, 7, 9]
    assert [each.chunk_id for each in fuse_reciprocal_ranks(tied, [])] == [4, 7, 9]


@pytest.mark.parametrize("method", FusionMethod)
def test_nothing_fuses_to_nothing(method: FusionMethod) -> None:
    assert fuse(method, [], []) == []


@given(METHODS, COSINES, BM25_SCORES, st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(
    method: FusionMethod,
    vector: list[ScoredChunk],
    keyword: list[ScoredChunk],
    rng: random.Random,
) -> None:
    expected = fuse(method, vector, keyword)
    rng.shuffle(vector)
    rng.shuffle(keyword)
    assert fuse(method, vector, keyword) == expected


@given(METHODS, COSINES, BM25_SCORES, st.floats(0, 1))
def test_every_chunk_comes_once_with_a_bounded_score_best_first(
    method: FusionMethod, vector: list[ScoredChunk], keyword: list[ScoredChunk], weight: float
) -> None:
    fused = fuse(method, vector, keyword, vector_weight=weight)
    assert {each.chunk_id for each in fused} == {each.chunk_id for each in vector + keyword}
    assert len({each.chunk_id for each in fused}) == len(fused)
    scores = [each.score for each in fused]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 + 1e-12 for score in scores)


@given(METHODS, COSINES, BM25_SCORES, st.floats(0.001, 10), st.data())
def test_a_higher_keyword_score_never_lowers_a_chunk(
    method: FusionMethod,
    vector: list[ScoredChunk],
    keyword: list[ScoredChunk],
    gain: float,
    data: st.DataObject,
) -> None:
    if not keyword:
        return
    favoured = data.draw(st.sampled_from(keyword))
    raised = [
        ScoredChunk(each.chunk_id, each.score + gain) if each == favoured else each
        for each in keyword
    ]

    def score(arm: list[ScoredChunk]) -> float:
        fused = fuse(method, vector, arm)
        return next(each.score for each in fused if each.chunk_id == favoured.chunk_id)

    assert score(raised) >= score(keyword) - 1e-12
