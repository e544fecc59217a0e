import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rag.core import fusion
from services.rag.core.fusion import FusionMethod, Hits
from services.rag.core.passages import ScoredChunk


def hits(low: float, high: float) -> st.SearchStrategy[list[ScoredChunk]]:
    return st.dictionaries(st.integers(1, 12), st.floats(low, high), max_size=10).map(
        lambda scores: [ScoredChunk(key, score) for key, score in scores.items()]
    )


COSINES, BM25_SCORES = hits(-1, 1), hits(0, 50)
METHODS = st.sampled_from(FusionMethod)


def fuse(*arguments, **options):
    return fusion.fuse(*arguments, **options).best


@given(COSINES, BM25_SCORES, METHODS, st.integers(0, 12))
def test_a_limit_leaves_the_best_and_tells_how_many_there_are(vector, keyword, method, limit):
    whole = fusion.fuse(method, Hits(vector, keyword))
    limited = fusion.fuse(method, Hits(vector, keyword), limit=limit)
    assert limited.best == whole.best[:limit]
    assert limited.total_count == whole.total_count == len(whole.best)


def test_convex_fusion_weighs_normalised_scores() -> None:
    hits = Hits(
        [ScoredChunk(1, 0.9), ScoredChunk(2, 0.7), ScoredChunk(3, 0.5)],
        [ScoredChunk(3, 10.0), ScoredChunk(4, 5.0)],
    )
    fused = fuse(FusionMethod.CONVEX, hits, vector_weight=0.4)
    assert [each.chunk_id for each in fused] == [3, 1, 4, 2]
    # The lowest cosine counts 0; BM25 is measured from 0, not from the lowest hit.
    assert [each.score for each in fused] == pytest.approx([0.6, 0.4, 0.3, 0.2])


def test_reciprocal_ranks_are_summed_over_the_arms_that_have_the_chunk() -> None:
    hits = Hits([ScoredChunk(1, 0.9), ScoredChunk(2, 0.8)], [ScoredChunk(2, 7.0)])
    fused = fuse(FusionMethod.RECIPROCAL_RANK, hits)
    assert [each.chunk_id for each in fused] == [2, 1]
    assert fused[0].score == pytest.approx((1 / 62 + 1 / 61) * 61 / 2)
    assert fused[1].score == pytest.approx(0.5)


def test_ranks_and_scores_of_each_arm_are_kept() -> None:
    hits = Hits([ScoredChunk(1, 0.9)], [ScoredChunk(1, 3.0), ScoredChunk(2, 1.0)])
    (both, keyword_only) = fuse(FusionMethod.CONVEX, hits)
    assert (both.vector_rank, both.vector_score) == (1, 0.9)
    assert (both.keyword_rank, both.keyword_score) == (1, 3.0)
    assert (keyword_only.vector_rank, keyword_only.vector_score) == (None, None)
    assert (keyword_only.keyword_rank, keyword_only.keyword_score) == (2, 1.0)


@pytest.mark.parametrize("method", FusionMethod)
def test_ties_go_to_the_lower_chunk_id(method: FusionMethod) -> None:
    tied = [ScoredChunk(9, 1.0), ScoredChunk(4, 1.0), ScoredChunk(7, 1.0)]
    assert [each.chunk_id for each in fuse(method, Hits((), tied))] == [4, 7, 9]
    assert [each.chunk_id for each in fuse(method, Hits(tied, ()))] == [4, 7, 9]


def test_an_arm_that_is_alone_counts_whole() -> None:
    hits = [ScoredChunk(1, 4.0), ScoredChunk(2, 1.0)]
    for weight in (0.0, 0.5, 1.0):
        fused = fuse(FusionMethod.CONVEX, Hits((), hits), vector_weight=weight)
        assert [each.score for each in fused] == pytest.approx([1.0, 0.25])


def test_another_wording_counts_as_much_as_its_weight_says() -> None:
    question = Hits((), [ScoredChunk(1, 8.0), ScoredChunk(2, 4.0)])
    variant = Hits((), [ScoredChunk(3, 5.0), ScoredChunk(2, 5.0)], weight=0.5)
    fused = fuse(FusionMethod.CONVEX, question, [variant])
    assert [(each.chunk_id, each.score) for each in fused] == [
        (1, pytest.approx(1 / 1.5)),
        (2, pytest.approx((0.5 + 0.5) / 1.5)),
        (3, pytest.approx(0.5 / 1.5)),
    ]
    # What only another wording found has no place in the question's own arms.
    assert fused[2].keyword_rank is None
    assert fused[1].keyword_rank == 2


@pytest.mark.parametrize("method", FusionMethod)
def test_nothing_fuses_to_nothing(method: FusionMethod) -> None:
    assert fuse(method, Hits()) == []


@given(METHODS, COSINES, BM25_SCORES, st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(
    method: FusionMethod,
    vector: list[ScoredChunk],
    keyword: list[ScoredChunk],
    rng: random.Random,
) -> None:
    expected = fuse(method, Hits(vector, keyword))
    rng.shuffle(vector)
    rng.shuffle(keyword)
    assert fuse(method, Hits(vector, keyword)) == expected


@given(METHODS, COSINES, BM25_SCORES, COSINES, BM25_SCORES, st.floats(0, 1), st.floats(0.01, 1))
def test_every_chunk_comes_once_with_a_bounded_score_best_first(
    method: FusionMethod,
    vector: list[ScoredChunk],
    keyword: list[ScoredChunk],
    other_vector: list[ScoredChunk],
    other_keyword: list[ScoredChunk],
    vector_weight: float,
    weight: float,
) -> None:
    variant = Hits(other_vector, other_keyword, weight)
    fused = fuse(method, Hits(vector, keyword), [variant], vector_weight=vector_weight)
    found = vector + keyword + other_vector + other_keyword
    assert {each.chunk_id for each in fused} == {each.chunk_id for each in found}
    assert len({each.chunk_id for each in fused}) == len(fused)
    scores = [each.score for each in fused]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


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
        fused = fuse(method, Hits(vector, arm))
        return next(each.score for each in fused if each.chunk_id == favoured.chunk_id)

    assert score(raised) >= score(keyword) - 1e-12


@given(METHODS, COSINES, BM25_SCORES, BM25_SCORES, st.data())
def test_being_found_by_another_wording_never_lowers_a_chunk_against_one_that_is_not(
    method: FusionMethod,
    vector: list[ScoredChunk],
    keyword: list[ScoredChunk],
    other: list[ScoredChunk],
    data: st.DataObject,
) -> None:
    question = Hits(vector, keyword)
    alone = [each.chunk_id for each in fuse(method, question)]
    in_variant = {each.chunk_id for each in other}
    winners = [each for each in alone if each in in_variant]
    losers = [each for each in alone if each not in in_variant]
    if not winners or not losers:
        return
    winner, loser = data.draw(st.sampled_from(winners)), data.draw(st.sampled_from(losers))
    together = fuse(method, question, [Hits((), other, 0.5)])
    places = {each.chunk_id: place for place, each in enumerate(together)}
    if alone.index(winner) < alone.index(loser):
        scores = {each.chunk_id: each.score for each in together}
        assert places[winner] < places[loser] or scores[winner] == pytest.approx(scores[loser])
