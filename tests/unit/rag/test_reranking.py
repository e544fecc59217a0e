from math import inf, isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rag.core.ranking.reranking import likelihood, rerank
from tests.kit.candidates import candidate, passage

LOGITS = st.lists(st.none() | st.floats(-50, 50), max_size=8)


def ranking(*scores: float):
    return [candidate(passage(number), score) for number, score in enumerate(scores, 1)]


def test_the_belief_counts_more_than_the_fused_score_but_not_alone() -> None:
    first, second = rerank(ranking(0.9, 0.5), [0.0, 0.5])
    # 0.7 * 0.5 + 0.3 * 0.9 against 0.7 * 0.622 + 0.3 * 0.5: the fused score still decides.
    assert [first.ranking.chunk_id, second.ranking.chunk_id] == [1, 2]
    first, second = rerank(ranking(0.9, 0.5), [-2.0, 2.0])
    assert [first.ranking.chunk_id, second.ranking.chunk_id] == [2, 1]
    assert first.relevance == pytest.approx(0.7 * likelihood(2.0) + 0.3 * 0.5)
    assert first.ranking.rerank_score == pytest.approx(likelihood(2.0))
    assert first.ranking.score == 0.5


def test_what_was_not_judged_keeps_its_place() -> None:
    ordered = rerank(ranking(0.9, 0.8, 0.7, 0.6), [-9.0, None, 9.0])
    assert [each.ranking.chunk_id for each in ordered] == [3, 2, 1, 4]
    assert [each.ranking.rerank_score is None for each in ordered] == [False, True, False, True]


@given(st.floats(-1e4, 1e4))
def test_a_likelihood_is_a_share_for_any_logit(logit: float) -> None:
    assert 0 <= likelihood(logit) <= 1
    assert isclose(likelihood(logit) + likelihood(-logit), 1)
    assert likelihood(inf) == 1


@given(LOGITS)
def test_no_candidate_is_lost_and_the_judged_ones_are_in_order(logits: list[float | None]) -> None:
    candidates = ranking(*(1 / number for number in range(1, len(logits) + 2)))
    ordered = rerank(candidates, logits)
    assert sorted(each.ranking.chunk_id for each in ordered) == [
        each.ranking.chunk_id for each in candidates
    ]
    judged = [each.relevance for each in ordered if each.ranking.rerank_score is not None]
    assert judged == sorted(judged, reverse=True)
