"""Percentiles, counts and the conditions that are put on them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pannier.load.outcome import CANCELLED, Outcome
from pannier.load.percentiles import Distribution
from pannier.load.tally import OTHERS, Tally
from pannier.load.thresholds import BadThreshold, parse_threshold

durations = st.lists(st.floats(1e-5, 1e5), min_size=1, max_size=200)


def distribution(values):
    found = Distribution()
    for each in values:
        found.add(each)
    return found


@given(durations, st.sampled_from([0.0, 0.5, 0.9, 0.95, 0.99, 1.0]))
def test_a_quantile_is_within_one_per_cent_of_the_value_at_its_rank(values, share):
    exact = sorted(values)[max(1, math.ceil(share * len(values))) - 1]
    assert distribution(values).quantile(share) == pytest.approx(exact, rel=0.0101)


@given(durations, durations)
def test_two_distributions_add_up_to_that_of_all_values(some, others):
    merged = distribution(some)
    merged.merge(distribution(others))
    whole = distribution(some + others)
    assert list(merged.buckets()) == list(whole.buckets())
    assert (merged.count, merged.maximum_seconds) == (whole.count, whole.maximum_seconds)
    assert merged.total_seconds == pytest.approx(whole.total_seconds)


def test_a_distribution_stays_small_whatever_it_is_given():
    found = distribution(1.001**step * 1e-9 for step in range(60_000))
    assert found.count == 60_000
    assert len(list(found.buckets())) < 1200


def test_nothing_has_no_quantile_and_times_before_the_beginning_count_as_none():
    assert Distribution().quantile(0.5) is None
    assert Distribution().mean_seconds is None
    assert distribution([-1.0]).maximum_seconds == 0


def tell(tally, outcome, *, due=100.0, sent=100.0, ended=101.0, mode="rag", tenant="a"):
    tally.note_sent(mode=mode, tenant=tenant, kind="new", due=due, now=sent)
    tally.note_ended(mode=mode, tenant=tenant, due=due, now=ended, outcome=outcome)


def test_times_run_from_when_a_question_was_due_not_from_when_it_was_sent():
    tally = Tally()
    tell(tally, Outcome(first_text_after=104.0), due=100.0, sent=103.0, ended=105.0)
    assert tally.total.whole.quantile(1) == 5.0
    assert tally.total.first_text.quantile(1) == 4.0
    assert tally.total.late.quantile(1) == 3.0


def test_everything_is_counted_once_in_total_by_mode_and_by_tenant():
    tally = Tally()
    tell(tally, Outcome(cached=True, degraded=True))
    tell(tally, Outcome(error="ALL_ATTEMPTS_FAILED"), mode="direct", tenant="b")
    tell(tally, Outcome(error=CANCELLED), mode="direct", tenant="b")
    tally.note_refused(mode="rag", tenant="a", now=101.0)
    total = tally.total
    assert (total.offered, total.sent, total.refused) == (4, 3, 1)
    assert (total.answered, total.failed, total.cancelled) == (1, 1, 1)
    assert (total.error_ratio, total.cached_ratio, total.degraded_ratio) == (0.5, 1.0, 1.0)
    assert total.refused_ratio == 0.25
    assert dict(tally.errors) == {"ALL_ATTEMPTS_FAILED": 1}
    assert tally.in_flight == 0
    assert tally.modes["direct"].failed == tally.tenants["b"].failed == 1
    assert tally.modes["rag"].cached == tally.tenants["a"].cached == 1


def test_recent_is_the_last_ten_whole_seconds():
    tally = Tally()
    for second in range(100, 130):
        tell(tally, Outcome(), due=second, sent=second, ended=second + 0.5)
    assert tally.recent(130.2).answered == 10
    assert tally.recent(135.0).answered == 5
    assert tally.recent(200.0).answered == 0


def test_names_without_end_are_counted_together():
    tally = Tally()
    for number in range(200):
        tell(tally, Outcome(error=f"REASON_{number}"), tenant=f"tenant-{number}")
    assert len(tally.tenants) == 51
    assert tally.tenants[OTHERS].failed == 150
    assert len(tally.errors) == 51
    assert tally.errors.total() == 200


def test_the_document_has_the_whole_histogram():
    tally = Tally()
    for ended in (100.1, 100.2, 103.0):
        tell(tally, Outcome(), ended=ended)
    whole = tally.document()["total"]["whole_seconds"]
    assert sum(each["count"] for each in whole["histogram"]) == whole["count"] == 3
    assert whole["histogram"][-1]["upper_seconds"] >= 3.0
    assert whole["p99"] == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("p95>2s", True),
        ("p95>4s", False),
        ("p95>=2500ms", True),
        ("max>0.1m", False),
        ("mean < 4s", True),
        ("first_text_p50>1s", True),
        ("late_p99>100ms", False),
        ("errors>1%", True),
        ("errors>0.5", False),
        ("cached<60%", True),
        ("degraded>10%", False),
        ("refused>0%", False),
        ("rate<1/s", True),
        ("rate<0.1", False),
        ("mode.rag.p95>2s", True),
        ("tenant.a.errors>60%", False),
    ],
)
def test_a_condition_holds_or_does_not(text, broken):
    tally = Tally()
    tell(tally, Outcome(first_text_after=102.0), ended=103.0)
    tell(tally, Outcome(error="X"))
    problem = parse_threshold(text).problem(tally, answering_seconds=2.0)
    assert (problem is not None) == broken


@pytest.mark.parametrize("text", ["p95>2s", "cached<1%", "mode.deep.errors>1%", "late_p99>1s"])
def test_a_figure_that_is_not_there_is_a_failure(text):
    problem = parse_threshold(text).problem(Tally(), answering_seconds=10.0)
    assert problem == f"{text}: there is no figure"


@pytest.mark.parametrize(
    "text",
    ["", "p95", "p95>2", "p95>2%", "errors>2s", "p97>1s", "rate>5s", "p95=2s", "mode.p95>1s"],
)
def test_what_is_no_condition_is_refused(text):
    with pytest.raises(BadThreshold):
        parse_threshold(text)
