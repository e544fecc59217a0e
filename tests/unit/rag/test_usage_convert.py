import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from pannier.rag.v1 import usage_service_pb2 as pb
from services.common.errors import InvalidRequest, PageTokenMismatch
from services.common.validation import Violations
from services.rag.core.experiment import Experiment, ExperimentUnit, Variant
from services.rag.core.experiment_report import FeedbackCounts, Sample, VariantFigures
from services.rag.core.usage import UsageBucket, UsageDimension
from services.rag.usage_convert import (
    budget_of,
    feedback_of,
    filter_of,
    place_of,
    position_of,
    span_of,
    to_variant_reports,
)
from services.rag.usage_servicer import tracked_call_of

NOW = 1_800_000_000.0


def fields_of(read, request):
    """Returns the fields at fault."""
    violations = Violations()
    try:
        read(request, violations)
        violations.raise_found()
    except InvalidRequest as error:
        return [each.field for each in error.violations]
    return []


def only(read):
    return lambda request, _violations: read(request)


def read_span(request, violations):
    return span_of(request, violations, now=NOW)


@pytest.mark.parametrize(
    ("fields", "at_fault"),
    [
        ({"start_time": Timestamp(seconds=-1)}, ["start_time", "start_time"]),
        ({"end_time": Timestamp(seconds=2**62)}, ["end_time"]),
        ({"end_time": Timestamp(seconds=5, nanos=-1)}, ["end_time"]),
        ({"start_time": Timestamp(seconds=2**33)}, ["start_time"]),
        ({"start_time": Timestamp(seconds=0)}, ["start_time"]),
        ({"bucket": 99}, ["bucket"]),
        ({"group_by": [0, 99]}, ["group_by[0]", "group_by[1]"]),
        ({"group_by": [1, 1]}, ["group_by[1]"]),
        ({"group_by": [99] * 10_000}, [f"group_by[{index}]" for index in range(5)]),
    ],
)
def test_a_bad_span_is_told(fields, at_fault):
    assert fields_of(read_span, pb.GetUsageRequest(**fields)) == at_fault


def test_a_span_reaches_from_full_hour_to_full_hour():
    request = pb.GetUsageRequest(
        start_time=Timestamp(seconds=7201), end_time=Timestamp(seconds=10_801), group_by=[3, 1]
    )
    found = read_span(request, Violations())
    assert (found.start_seconds, found.end_seconds) == (7200, 14_400)
    assert found.bucket is UsageBucket.TOTAL
    assert found.group_by == (UsageDimension.MODEL, UsageDimension.USER)
    whole_day = read_span(pb.GetUsageRequest(), Violations())
    assert whole_day.end_seconds - whole_day.start_seconds == 86_400


@pytest.mark.parametrize(
    ("fields", "at_fault"),
    [
        ({"slower_than": Duration(seconds=-1)}, ["slower_than"]),
        ({"slower_than": Duration(seconds=2**62)}, ["slower_than"]),
        ({"since": Timestamp(seconds=2**60)}, ["since"]),
        ({"mode": "'; DROP TABLE"}, ["mode"]),
        ({"mode": "rag", "slower_than": Duration()}, []),
    ],
)
def test_a_bad_filter_is_told(fields, at_fault):
    assert fields_of(filter_of, pb.ListProfilesRequest(**fields)) == at_fault


@pytest.mark.parametrize(
    ("fields", "at_fault"),
    [
        ({"query_id": ""}, ["query_id"]),
        ({"query_id": "a\x00b"}, ["query_id"]),
        ({"query_id": "x" * 65}, ["query_id"]),
        ({"rating": 2}, ["rating"]),
        ({"rating": -(2**31)}, ["rating"]),
        ({"reasons": ["Not a word"]}, ["reasons[0]"]),
        ({"reasons": ["x"] * 17}, ["reasons"]),
        ({"comment": "x" * 4001}, ["comment"]),
        ({"corrected_answer": "x" * 16_001}, ["corrected_answer"]),
        ({"relevant_passage_ids": ["1"] * 51}, ["relevant_passage_ids"]),
        ({"relevant_passage_ids": [""]}, ["relevant_passage_ids[0]"]),
        ({"rating": -1, "comment": "No."}, []),
    ],
)
def test_bad_feedback_is_told(fields, at_fault):
    request = pb.SubmitFeedbackRequest(**({"query_id": "q"} | fields))
    assert fields_of(only(feedback_of), request) == at_fault


@pytest.mark.parametrize(
    ("fields", "at_fault"),
    [
        ({"model": " "}, ["model"]),
        ({"model": "x" * 201}, ["model"]),
        ({"model": "a\x00"}, ["model"]),
        ({"mode": "Not A Mode"}, ["mode"]),
        ({"prompt_token_count": -1}, ["prompt_token_count"]),
        ({"completion_token_count": 2**62}, ["completion_token_count"]),
        ({"cost_nanos": -1}, ["cost_nanos"]),
        ({"idempotency_key": "\x00"}, ["idempotency_key"]),
        ({"idempotency_key": "x" * 129}, ["idempotency_key"]),
        ({"cost_nanos": 0}, []),
    ],
)
def test_a_bad_call_is_told(fields, at_fault):
    request = pb.TrackModelCallRequest(**({"model": "m"} | fields))
    assert fields_of(only(tracked_call_of), request) == at_fault


def test_limits_that_are_left_out_are_none_and_those_out_of_range_are_told():
    assert budget_of(pb.Budget(daily_token_count=0)).daily_token_count == 0
    assert budget_of(pb.Budget()).is_empty
    request = pb.Budget(daily_cost_nanos=-1, monthly_token_count=2**63 - 1)
    assert fields_of(only(budget_of), request) == [
        "budget.daily_cost_nanos",
        "budget.monthly_token_count",
    ]


@given(st.floats(0, 2**34), st.text("abc-_", min_size=1))
def test_a_place_is_found_again(seconds, name):
    found = place_of(position_of(seconds, name), name_count=1)
    assert found == (round(seconds * 1e6) / 1e6, (name,))


@pytest.mark.parametrize("position", ["x q", "1", "1 a b", "-1 q", "9" * 40 + " q"])
def test_what_is_no_place_is_refused(position):
    with pytest.raises(PageTokenMismatch):
        place_of(position, name_count=1)


def test_variants_come_as_they_are_set_and_those_there_were_last():
    experiment = Experiment(
        "x",
        ExperimentUnit.USER,
        tuple(Variant(name, 0.5, {}) for name in ("first", "second")),
    )
    figures = [
        VariantFigures(variant="gone", query_count=1),
        VariantFigures(
            variant="second",
            query_count=9,
            quality=Sample(9, 0.9, 0.01),
            feedback=FeedbackCounts(3, 5, 1),
        ),
    ]
    first, second, gone = to_variant_reports(experiment, figures)
    assert [first.variant, second.variant, gone.variant] == ["first", "second", "gone"]
    assert (first.query_count, gone.share_ratio) == (0, 0.0)
    assert not second.HasField("quality_difference")
    assert second.positive_ratio == 0.75
    assert second.positive_ratio_low < 0.75 < second.positive_ratio_high
