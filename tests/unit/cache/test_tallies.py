"""What GetStats says adds up."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.model import Hit, Level, Lookup, WriteOutcome
from services.cache.core.tallies import LayerTally, Savings

HITS = st.none() | st.builds(
    Hit, payload=st.just(b""), age_seconds=st.just(0.0), level=st.sampled_from(Level)
)
LOOKUPS = st.builds(
    Lookup,
    hits=st.lists(HITS, min_size=1, max_size=6).map(tuple),
    degraded=st.booleans(),
    rejected_count=st.integers(0, 3),
)


@given(st.lists(LOOKUPS, max_size=20))
def test_hits_and_misses_make_up_the_lookups(lookups: list[Lookup]) -> None:
    tally = LayerTally()
    for lookup in lookups:
        tally.add_lookup(lookup, 0.001)
    assert tally.lookup_count == sum(len(each.hits) for each in lookups)
    hits = tally.local_hit_count + tally.shared_hit_count
    assert hits + tally.miss_count == tally.lookup_count
    assert tally.degraded_miss_count <= tally.miss_count
    assert 0 <= tally.hit_ratio <= 1
    if lookups:
        assert tally.hit_ratio == hits / tally.lookup_count


def test_quantiles_are_within_one_percent_of_the_true_ones() -> None:
    durations = np.random.default_rng(7).lognormal(-7, 1.2, 5_000)
    tally = LayerTally()
    for each in durations:
        tally.add_lookup(Lookup(hits=(None,), degraded=False), float(each))
    for quantile in (0.5, 0.99):
        true = float(np.quantile(durations, quantile, method="lower"))
        assert tally.duration_quantile(quantile) == pytest.approx(true, rel=0.0101)


def test_there_are_no_quantiles_before_the_first_lookup() -> None:
    assert LayerTally().duration_quantile(0.5) is None
    assert LayerTally().hit_ratio == 0.0


def test_dropped_and_refused_writes_count_as_not_taken() -> None:
    tally = LayerTally()
    tally.add_writes(tuple(WriteOutcome))
    assert (tally.stored_count, tally.dropped_store_count) == (1, 2)


def test_savings_add_up() -> None:
    tally = LayerTally()
    tally.add_savings(Savings(10, 20, 1.5))
    tally.add_savings(Savings(1, 2, 0.25))
    assert tally.saved_prompt_token_count == 11
    assert tally.saved_completion_token_count == 22
    assert tally.saved_seconds == 1.75
