"""What GetStats says of a layer adds up, in every window."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.model import Hit, Level, Lookup, WriteOutcome
from services.cache.core.savings import Savings
from services.cache.core.sketches import QUANTILES
from services.cache.core.spans import HitKind, Span
from services.cache.core.tallies import LayerTally


def hit(level: Level = Level.LOCAL, age_seconds: float = 1.0) -> Hit:
    return Hit(
        payload=b"", level=level, created_ms=0, age_seconds=age_seconds, remaining_seconds=60.0
    )


LOOKUPS = st.builds(
    Lookup,
    hits=st.lists(st.none() | st.builds(hit, st.sampled_from(Level)), min_size=1, max_size=6).map(
        tuple
    ),
    degraded=st.booleans(),
    rejected_count=st.integers(0, 3),
    invalidated_count=st.integers(0, 3),
)
KINDS_AT_ONCE = (HitKind.LOCAL, HitKind.SHARED, HitKind.NEGATIVE, HitKind.EXACT, HitKind.SIMILAR)


def all_time(tally: LayerTally, now: float = 0.0) -> Span:
    return tally.spans(now)[-1]


@given(st.lists(st.tuples(LOOKUPS, st.floats(0, 100)), max_size=20))
def test_hits_and_misses_make_up_the_lookups_of_every_window(lookups) -> None:
    tally, now = LayerTally(0.0), 0.0
    for lookup, pause in lookups:
        now += pause
        tally.add_lookup(lookup, 0.001, now)
    for span in tally.spans(now):
        hits = sum(map(span.hit_count, KINDS_AT_ONCE))
        assert hits + span.miss_count == span.lookup_count
        assert span.degraded_miss_count <= span.miss_count
        assert 0 <= span.hit_ratio <= 1
        if span.lookup_count:
            assert span.hit_ratio == hits / span.lookup_count
    life = all_time(tally, now)
    assert life.lookup_count == sum(len(each.hits) for each, _ in lookups)
    assert life.rejected_value_count == sum(each.rejected_count for each, _ in lookups)
    assert life.invalidated_value_count == sum(each.invalidated_count for each, _ in lookups)


def test_misses_without_the_shared_store_are_counted_as_such() -> None:
    tally = LayerTally(0.0)
    tally.add_lookup(Lookup(hits=(None, hit(), None), degraded=True), 0.001, 0.0)
    tally.add_lookup(Lookup(hits=(None,), degraded=False), 0.001, 0.0)
    span = all_time(tally)
    assert (span.miss_count, span.degraded_miss_count) == (3, 2)


@pytest.mark.parametrize("which", ["lookup_times", "hit_ages"])
def test_quantiles_are_within_one_percent_of_the_true_ones(which) -> None:
    values = np.random.default_rng(7).lognormal(-4, 1.2, 5_000)
    tally = LayerTally(0.0)
    for each in values.tolist():
        tally.add_lookup(Lookup(hits=(hit(age_seconds=each),), degraded=False), each, 0.0)
    true = [float(np.quantile(values, each, method="lower")) for each in QUANTILES]
    for span in tally.spans(1.0):
        assert getattr(span, which) == pytest.approx(true, rel=0.01001)


def test_windows_know_their_own_quantiles() -> None:
    tally = LayerTally(0.0)
    for now, seconds in ((0.0, 0.1), (1000.0, 0.001)):
        tally.add_lookup(Lookup(hits=(None,), degraded=False), seconds, now)
    minute, _, hour, _ = tally.spans(1000.0)
    assert minute.lookup_times == pytest.approx((0.001,) * 4, rel=0.01)
    assert hour.lookup_times is not None
    assert hour.lookup_times[-1] == pytest.approx(0.001, rel=0.01)
    assert all_time(tally, 5000.0).lookup_times is not None
    assert tally.spans(5000.0)[2].lookup_times is None


def test_there_are_no_ratios_and_quantiles_before_the_first_lookup() -> None:
    span = all_time(LayerTally(0.0))
    assert span.lookup_times is None
    assert span.hit_ages is None
    assert (span.hit_ratio, span.effective_hit_ratio, span.token_hit_ratio) == (0, 0, 0)


def test_negative_hits_are_neither_hits_nor_misses() -> None:
    tally = LayerTally(0.0)
    for _ in range(4):
        tally.add_lookup(Lookup(hits=(None,), degraded=False), 0.001, 0.0)
    tally.add_hit(HitKind.NEGATIVE, 0.0)
    span = all_time(tally)
    assert (span.miss_count, span.hit_ratio, span.effective_hit_ratio) == (3, 0, 0)


def test_coalesced_callers_count_in_the_effective_ratio_only() -> None:
    tally = LayerTally(0.0)
    for each in (hit(), None, None, None):
        tally.add_lookup(Lookup(hits=(each,), degraded=False), 0.001, 0.0)
    tally.add_hit(HitKind.COALESCED, 0.0)
    span = all_time(tally)
    assert (span.hit_ratio, span.effective_hit_ratio) == (0.25, 0.5)
    assert span.miss_count == 3


def test_a_confirmed_candidate_is_a_hit_and_no_miss_any_more() -> None:
    tally = LayerTally(0.0)
    tally.add_semantic_lookup(HitKind.SIMILAR, 0.001, 0.0, age_seconds=5.0)
    tally.add_semantic_lookup(None, 0.001, 0.0)
    tally.add_hit(HitKind.CONFIRMED, 0.0)
    span = all_time(tally)
    assert (span.lookup_count, span.miss_count, span.hit_ratio) == (2, 0, 1)
    assert span.hit_ages == pytest.approx((5.0,) * 4, rel=0.01)


def test_confirmations_later_than_their_lookup_leave_ratios_ratios() -> None:
    tally = LayerTally(0.0)
    tally.add_semantic_lookup(None, 0.001, 0.0)
    tally.add_semantic_lookup(None, 0.001, 100.0)
    for _ in range(2):
        tally.add_hit(HitKind.CONFIRMED, 100.0)
    minute = tally.spans(100.0)[0]
    assert (minute.lookup_count, minute.hit_count(HitKind.CONFIRMED)) == (1, 2)
    assert (minute.hit_ratio, minute.miss_count) == (1.0, 0)


def test_bypasses_are_no_lookups() -> None:
    tally = LayerTally(0.0)
    tally.add_bypasses(3, 0.0)
    span = all_time(tally)
    assert (span.bypass_count, span.lookup_count, span.miss_count) == (3, 0, 0)


def test_dropped_and_refused_writes_count_as_not_taken() -> None:
    tally = LayerTally(0.0)
    tally.add_writes(tuple(WriteOutcome), 0.0)
    span = all_time(tally)
    assert (span.stored_count, span.dropped_store_count) == (1, 2)


def test_savings_add_up_apart_from_those_of_coalesced_callers() -> None:
    tally = LayerTally(0.0)
    tally.add_savings(Savings(10, 20, 1.5), 0.0)
    tally.add_savings(Savings(1, 2, 0.25), 0.0)
    tally.add_savings(Savings(5, 6, 7.0), 0.0, coalesced=True)
    span = all_time(tally)
    assert span.saved == Savings(11, 22, 1.75)
    assert span.coalesced == Savings(5, 6, 7.0)


def test_the_token_hit_ratio_is_of_tokens_saved_and_generated() -> None:
    tally = LayerTally(0.0)
    tally.add_generated(Savings(30, 30, 1.0), 0.0)
    assert all_time(tally).token_hit_ratio == 0
    tally.add_savings(Savings(10, 10, 1.0), 0.0)
    assert all_time(tally).token_hit_ratio == 0.25


def test_the_time_of_all_lookups_is_summed_up() -> None:
    tally = LayerTally(0.0)
    for seconds in (0.25, 0.5):
        tally.add_lookup(Lookup(hits=(None, None), degraded=False), seconds, 0.0)
    assert all_time(tally).lookup_seconds == 0.75


def test_evictions_leave_the_window_they_happened_in() -> None:
    tally = LayerTally(0.0)
    tally.add_evictions(4, 0.0)
    assert [span.eviction_count for span in tally.spans(100.0)] == [0, 4, 4, 4]
