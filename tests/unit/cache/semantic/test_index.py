"""Search is exact: it finds what comparing with every vector would find."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.cache.core.semantic.index import VectorIndex, similarities, unit_vector

DIMENSION = 8
NOW_MS = 1_000_000
FOREVER_MS = 10**15


def unit(seed: int, dimension: int = DIMENSION) -> np.ndarray:
    components = np.random.default_rng(seed).standard_normal(dimension).astype("<f4")
    return unit_vector(components.tobytes())


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    (only,) = similarities(one[np.newaxis], other)
    return float(only)


def find(index: VectorIndex, vector: np.ndarray, floor: float, limit: int = 64, **times: int):
    times = {"now_ms": NOW_MS, "after_ms": 0} | times
    rows = index.scan(vector, floor=floor, limit=limit, **times)
    return index.rank(vector, rows, floor=floor, **times)


changes = st.lists(
    st.one_of(
        st.tuples(
            st.just("add"),
            st.integers(0, 30),
            st.sampled_from([NOW_MS - 1, NOW_MS, NOW_MS + 1, FOREVER_MS]),
            st.sampled_from([1, 500, 501, 900]),
        ),
        st.tuples(st.just("remove"), st.integers(0, 200), st.just(0), st.just(0)),
    ),
    max_size=80,
)


@settings(max_examples=200)
@given(changes, st.integers(0, 30), st.sampled_from([-1.0, 0.0, 0.5, 0.9, 0.95]))
def test_search_finds_what_comparing_with_every_vector_finds(changes, seed, floor):
    index = VectorIndex(DIMENSION)
    model: dict[int, tuple[int, int, int]] = {}
    for kind, number, expires_ms, created_ms in changes:
        if kind == "add":
            row = index.add(unit(number), created_ms=created_ms, expires_ms=expires_ms)
            assert row not in model
            model[row] = (number, expires_ms, created_ms)
        elif model:
            row = sorted(model)[number % len(model)]
            index.remove(row)
            del model[row]
    assert len(index) == len(model)
    vector = unit(seed)
    found = find(index, vector, floor, limit=1000, after_ms=500)
    expected = {
        row: similarity(unit(number), vector)
        for row, (number, expires_ms, created_ms) in model.items()
        if expires_ms > NOW_MS and created_ms > 500
    }
    assert {each.row: each.similarity for each in found} == {
        row: value for row, value in expected.items() if value >= floor
    }
    in_order = [each.similarity for each in found]
    assert in_order == sorted(in_order, reverse=True)
    assert sorted(index.expired(NOW_MS)) == sorted(
        row for row, (_, expires_ms, _) in model.items() if expires_ms <= NOW_MS
    )


@settings(max_examples=50)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=60, unique=True), st.integers(1, 10))
def test_the_oldest_are_those_created_first(created, count):
    index = VectorIndex(DIMENSION)
    rows = {
        index.add(unit(number), created_ms=1 + number, expires_ms=FOREVER_MS): number
        for number in created
    }
    oldest = sorted(rows[row] for row in index.oldest(count))
    assert oldest == sorted(created)[:count]


def test_of_many_the_most_similar_are_found():
    rng = np.random.default_rng(1)
    index = VectorIndex(64)
    vectors = [unit_vector(rng.standard_normal(64).astype("<f4").tobytes()) for _ in range(3000)]
    for vector in vectors:
        index.add(vector, created_ms=1, expires_ms=FOREVER_MS)
    for number in range(20):
        asked = vectors[number]
        expected = sorted((similarity(each, asked) for each in vectors), reverse=True)[:5]
        found = find(index, asked, 0.0, limit=5)
        assert [each.similarity for each in found] == expected


@pytest.mark.parametrize("dimension", [384, 768, 1024])
def test_the_fast_scan_turns_no_decision_at_the_threshold(dimension):
    rng = np.random.default_rng(dimension)
    index = VectorIndex(dimension)
    asked = unit(1, dimension)
    wanted = rng.uniform(0.9499, 0.9501, 2000)
    expected = set()
    for value in wanted:
        other = rng.standard_normal(dimension)
        other -= asked * (other @ asked)
        other /= np.linalg.norm(other)
        components = (value * asked + np.sqrt(1 - value**2) * other).astype("<f4")
        stored = unit_vector(components.tobytes())
        row = index.add(stored, created_ms=1, expires_ms=FOREVER_MS)
        if similarity(stored, asked) >= 0.95:
            expected.add(row)
    assert 0 < len(expected) < 2000
    found = find(index, asked, 0.95, limit=2000)
    assert {each.row for each in found} == expected


def test_a_row_given_out_again_holds_its_new_vector_only():
    index = VectorIndex(DIMENSION)
    row = index.add(unit(1), created_ms=1, expires_ms=FOREVER_MS)
    rows = index.scan(unit(1), floor=0.9, now_ms=NOW_MS, after_ms=0, limit=5)
    index.remove(row)
    assert index.add(unit(2), created_ms=1, expires_ms=FOREVER_MS) == row
    # What was found before the change counts by what stands there after it.
    assert index.rank(unit(1), rows, floor=0.9, now_ms=NOW_MS, after_ms=0) == []


def test_the_newer_of_two_equal_ones_comes_first():
    index = VectorIndex(DIMENSION)
    older = index.add(unit(1), created_ms=1, expires_ms=FOREVER_MS)
    newer = index.add(unit(1), created_ms=2, expires_ms=FOREVER_MS)
    assert [each.row for each in find(index, unit(1), 0.9)] == [newer, older]


def test_rows_that_were_never_used_are_not_found():
    index = VectorIndex(DIMENSION)
    index.reserve(100)
    assert find(index, unit(1), -1.0) == []
    assert index.oldest(5) == []


@given(st.integers(0, 1000), st.floats(1e-30, 1e30))
def test_length_makes_no_difference(seed, factor):
    components = np.random.default_rng(seed).standard_normal(DIMENSION)
    scaled = (components * factor).astype("<f4")
    if not scaled.any() or not np.isfinite(scaled).all():
        return
    one = unit_vector(components.astype("<f4").tobytes())
    other = unit_vector(scaled.tobytes())
    assert np.linalg.norm(other.astype(float)) == pytest.approx(1, abs=1e-6)
    assert similarity(one, other) > 1 - 1e-6


def test_only_the_same_words_have_similarity_one():
    for seed in range(50):
        assert similarity(unit(seed), unit(seed)) < 1.0
    assert similarity(unit(1), -unit(1)) == pytest.approx(-1)
