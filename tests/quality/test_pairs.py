"""Questions that must never share an answer, and others that may, with real vectors."""

from collections import Counter

import pytest

from services.cache.core.semantic.agreement import refusal_at
from services.cache.core.semantic.guards import features, refusal
from tests.bench.cache.quality_sets import pairs
from tests.kit.minilm import Embedder

THRESHOLD = 0.95
CATEGORIES = {
    "numbers",
    "negation",
    "on/off",
    "before/after",
    "min/max",
    "entities",
    "direction",
    "dates",
    "units",
    "versions",
    "quantifiers",
    "comparatives",
    "roles",
    "question type",
}


@pytest.fixture(scope="module")
def embedder():
    return Embedder()


def similarities(embedder, found):
    vectors = embedder.embed([text for pair in found for text in (pair.question, pair.other)])
    return (vectors[::2] * vectors[1::2]).sum(axis=1).tolist()


def test_the_sets_are_large_and_varied():
    polarity = pairs("polarity")
    assert len(polarity) >= 300
    counts = Counter(pair.category for pair in polarity)
    assert set(counts) == CATEGORIES
    assert min(counts.values()) >= 15
    assert len({(pair.question, pair.other) for pair in polarity}) == len(polarity)
    assert len(pairs("paraphrases")) >= 150


def test_no_pair_of_opposite_meaning_shares_an_answer(embedder):
    found = pairs("polarity")
    near = 0
    for pair, similarity in zip(found, similarities(embedder, found), strict=True):
        near += similarity >= THRESHOLD
        query, other = features(pair.question), features(pair.other)
        assert not (similarity >= THRESHOLD and refusal(pair.question, pair.other) is None), pair
        assert refusal_at(similarity, query, other) is not None, pair
    # Were they not similar, the guards would not have been tried.
    assert near >= 100


def test_the_words_alone_tell_nearly_all_of_them_apart():
    found = pairs("polarity")
    passed = [pair for pair in found if refusal(pair.question, pair.other) is None]
    assert len(passed) <= len(found) * 0.03, passed


def test_most_paraphrases_pass_the_guards():
    found = pairs("paraphrases")
    refused = [pair for pair in found if refusal(pair.question, pair.other) is not None]
    assert len(refused) <= len(found) * 0.2, refused
