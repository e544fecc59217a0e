"""`pannier profiles`, `feedback` and `budget`, against a service whose answers are written down."""

import json

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pannier.rag.v1 import rag_service_pb2 as rag
from pannier.rag.v1 import usage_service_pb2 as pb

RECORD = pb.QueryRecord(
    query_id="q-1",
    start_time=Timestamp(seconds=3600),
    mode="rag",
    outcome="success",
    origin=rag.ANSWER_ORIGIN_GENERATED,
    degradations=[rag.DEGRADATION_REASON_CACHE_UNAVAILABLE],
    quality=0.875,
    usage=pb.UsageAmounts(cost_nanos=2_000_000),
    duration=Duration(seconds=2),
    bottleneck="generation",
    trace_id="ab" * 16,
)


@pytest.fixture
def asked(services):
    """Requests by method; each is answered with what `answers` says."""
    requests: dict = {}
    answers = {
        "ListProfiles": pb.ListProfilesResponse(records=[RECORD], currency="EUR"),
        "GetProfile": pb.GetProfileResponse(
            record=RECORD,
            currency="EUR",
            profile=rag.Profile(
                stages=[
                    rag.ProfileStage(name="retrieval", duration=Duration(nanos=9_000_000)),
                    rag.ProfileStage(name="vector_search", parent_index=0, on_critical_path=True),
                    rag.ProfileStage(
                        name="generation", failed=True, error_reason="PEER_UNAVAILABLE"
                    ),
                ],
                total=Duration(seconds=2),
                advice=["Load the model before it is asked."],
            ),
        ),
        "ListFeedback": pb.ListFeedbackResponse(
            feedback=[pb.Feedback(query_id="q-1", rating=-1, reasons=["wrong"], mode="rag")]
        ),
        "SubmitFeedback": pb.SubmitFeedbackResponse(cache_entry_removed=True),
        "GetBudget": pb.GetBudgetResponse(
            budget=pb.Budget(daily_cost_nanos=10**10),
            spent=pb.Budget(daily_cost_nanos=25 * 10**8, daily_token_count=1234),
            exceeded=True,
            currency="EUR",
        ),
        "SetBudget": pb.SetBudgetResponse(),
    }
    for method, answer in answers.items():

        def reply(request, _context, method=method, answer=answer):
            requests[method] = request
            return answer

        services.answers[method] = reply
    return requests


def test_questions_are_listed_with_what_was_wrong(services, asked):
    result = services.run("profiles")
    assert result.exit_code == 0
    for part in ("q-1", "generated", "2.00 s", "0.88", "0.002000 EUR", "cache unavailable"):
        assert part in result.stdout


def test_what_is_looked_for_is_sent(services, asked):
    services.run("profiles", "--slower-than", "500ms", "--failed", "--degraded", "--mode", "deep")
    request = asked["ListProfiles"]
    assert request.slower_than.ToMilliseconds() == 500
    assert request.failed_only
    assert request.degraded_only
    assert request.mode == "deep"


def test_no_more_are_shown_than_asked_for(services, asked):
    services.answers["ListProfiles"] = lambda request, _context: pb.ListProfilesResponse(
        records=[RECORD] * request.page_size, next_page_token="more"
    )
    assert len(json.loads(services.run("profiles", "--limit", "3", "--json").stdout)) == 3


def test_a_list_without_its_store_says_so(services, asked):
    services.answers["ListProfiles"] = lambda _request, _context: pb.ListProfilesResponse(
        partial=True
    )
    assert "the store is away" in services.run("profiles").stderr


def test_a_question_is_shown_stage_by_stage(services, asked):
    result = services.run("profiles", "show", "q-1")
    assert asked["GetProfile"].query_id == "q-1"
    lines = result.stdout.splitlines()
    assert any(line.startswith("  vector_search") for line in lines)
    assert any("PEER_UNAVAILABLE" in line for line in lines)
    assert "- Load the model before it is asked." in lines


def test_feedback_is_listed(services, asked):
    result = services.run("feedback", "--rating", "bad")
    assert asked["ListFeedback"].rating == -1
    assert "wrong" in result.stdout


def test_feedback_is_given(services, asked):
    result = services.run("feedback", "give", "q-1", "bad", "--reason", "outdated")
    request = asked["SubmitFeedback"]
    assert (request.query_id, request.rating, list(request.reasons)) == ("q-1", -1, ["outdated"])
    assert "no longer given to others" in result.stdout


def test_a_rating_is_one_of_three(services, asked):
    assert services.run("feedback", "give", "q-1", "great").exit_code == 2
    assert "SubmitFeedback" not in asked


def test_a_budget_is_shown_with_what_is_spent(services, asked):
    result = services.run("budget")
    for part in ("2.50 EUR", "10.00 EUR", "25.0 %", "1,234", "no model is asked any more"):
        assert part in result.stdout


def test_a_budget_is_set(services, asked):
    services.run("budget", "set", "--daily-cost", "1.25", "--monthly-tokens", "1000")
    budget = asked["SetBudget"].budget
    assert budget.daily_cost_nanos == 1_250_000_000
    assert budget.monthly_token_count == 1000
    assert not budget.HasField("monthly_cost_nanos")


def test_a_budget_is_taken_away_on_request_only(services, asked):
    assert services.run("budget", "set").exit_code == 2
    assert services.run("budget", "set", "--none", "--daily-cost", "1").exit_code == 2
    assert "SetBudget" not in asked
    assert "is gone" in services.run("budget", "set", "--none").stdout
    assert not asked["SetBudget"].budget.ListFields()
