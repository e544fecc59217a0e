import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.semantic.agreement import refusal_at, required_similarity
from services.cache.core.semantic.features import features

LONG = "How do I reset the admin password of the Grafana server on Debian?"


def test_the_more_words_agree_the_less_similar_vectors_may_be():
    required = [
        required_similarity(features(text), features(text))
        for text in ("Who are you?", "reset password", "reset admin password", LONG)
    ]
    assert required == sorted(required, reverse=True)
    assert len(set(required)) == len(required)


@pytest.mark.parametrize("similarity", [0.8, 0.95, 1.0])
def test_no_similarity_outweighs_a_guard(similarity):
    assert (
        refusal_at(similarity, features(LONG), features(LONG.replace("Debian", "Fedora")))
        is not None
    )
    assert refusal_at(similarity, features(LONG), features(LONG.replace("do", "can", 1))) is None


@given(st.text(max_size=60), st.text(max_size=60), st.floats(0, 1))
def test_it_is_mutual(query, other, similarity):
    first, second = features(query), features(other)
    assert refusal_at(similarity, first, second) == refusal_at(similarity, second, first)
