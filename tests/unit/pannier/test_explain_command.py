"""`pannier explain`, against a balancer whose answers are written down here."""

import json

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.commands.explain import describe_outcome
from pannier.common.v1 import generation_pb2


def decision(**fields) -> pb.RoutingDecision:
    defaults = {
        "model": "llama3.2:latest",
        "outcome": pb.ROUTING_OUTCOME_DISPATCHED,
        "reason": pb.ROUTING_REASON_LOWEST_COST,
        "backend_id": "a:1",
        "predicted_first_token": Duration(nanos=250_000_000),
        "predicted_total": Duration(seconds=3),
        "prompt_token_count": 812,
        "predicted_output_token_count": 240,
        "candidates": [
            pb.RoutingCandidate(
                backend_id="a:1",
                exclusion=pb.EXCLUSION_REASON_NOT_EXCLUDED,
                cost_seconds=0.42,
                drain_seconds=0.01,
                load_seconds=0.02,
                prefill_seconds=0.03,
                decode_seconds=0.35,
                risk_seconds=0.01,
                prefix_hit_token_count=64,
                residency=pb.MODEL_RESIDENCY_WARM,
                in_flight_count=1,
                slot_count=4,
            ),
            pb.RoutingCandidate(
                backend_id="b:1", exclusion=pb.EXCLUSION_REASON_MODEL_ABSENT, cost_seconds=9.0
            ),
        ],
    }
    return pb.RoutingDecision(**(defaults | fields))


@pytest.fixture
def asked(services):
    """The requests that arrived; each is answered with the same decision."""
    requests: list[pb.ExplainRequest] = []

    def answer(request, _context):
        requests.append(request)
        return pb.ExplainResponse(decision=decision())

    services.answers["Explain"] = answer
    return requests


def test_every_candidate_is_shown_with_its_terms_and_others_with_why_not(services, asked):
    result = services.run("explain", "Hello", "--model", "llama3.2")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[1] == [
        *("→", "a:1", "0.420", "0.010", "0.020", "0.030", "0.350", "0.010"),
        *("64", "tokens", "warm", "1", "of", "4"),
    ]
    assert lines[2] == ["b:1", *"--------", "-", "model", "absent"]
    assert "Would be sent to a:1 now: its cost of 0.420 s is the least." in result.stdout
    assert result.stdout.splitlines()[-1] == (
        "llama3.2:latest, predicted: first result after 250.0 ms, all after 3.00 s · "
        "prompt of about 812 tokens · answer of about 240"
    )


def test_a_prompt_is_a_conversation_to_be_answered(services, asked):
    services.run("explain", "Hello", "--model", "m")
    message = generation_pb2.ChatMessage(role=generation_pb2.CHAT_ROLE_USER, content="Hello")
    assert asked == [pb.ExplainRequest(chat=pb.ChatRequest(model="m", messages=[message]))]


def test_a_text_can_be_asked_about_as_one_to_be_embedded_and_with_a_priority(services, asked):
    services.run("explain", "Hello", "--model", "m", "--embed", "--priority", "batch")
    routing = pb.RoutingOptions(priority=pb.PRIORITY_BATCH)
    request = pb.EmbedRequest(model="m", texts=["Hello"], routing=routing)
    assert asked == [pb.ExplainRequest(embed=request)]


def test_a_decision_is_asked_for_by_its_id(services, asked):
    services.run("explain", "--decision", "a1-17")
    assert asked == [pb.ExplainRequest(decision_id="a1-17")]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("Hello",),
        ("--model", "m"),
        ("Hello", "--decision", "a1-17"),
        ("--decision", "a1-17", "--model", "m"),
        ("--decision", "a1-17", "--embed"),
        ("--decision", "a1-17", "--priority", "batch"),
        ("Hello", "--model", "m", "--priority", "high"),
    ],
)
def test_a_prompt_with_a_model_or_a_decision_is_needed_not_both(services, asked, arguments):
    assert services.run("explain", *arguments).exit_code == 2
    assert asked == []


def test_json_is_the_decision(services, asked):
    document = json.loads(services.run("explain", "x", "--model", "m", "--json").stdout)
    assert document["outcome"] == "ROUTING_OUTCOME_DISPATCHED"
    assert document["predicted_first_token_seconds"] == 0.25
    assert document["candidates"][1]["exclusion"] == "EXCLUSION_REASON_MODEL_ABSENT"


def test_a_decision_made_is_shown_with_its_id_and_time(services):
    made = decision(decision_id="a1-17", decide_time=Timestamp(seconds=1_700_000_000))
    services.answers["Explain"] = lambda _request, _context: pb.ExplainResponse(decision=made)
    shown = services.run("explain", "--decision", "a1-17").stdout
    assert "Was sent to a:1: its cost of 0.420 s is the least.\n" in shown
    assert shown.splitlines()[-1] == "decision a1-17 of 2023-11-14T22:13:20Z"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"outcome": pb.ROUTING_OUTCOME_HELD, "queue_position": 2},
            "Would wait for a slot of a:1, 2 before it in the queue: its cost of 0.420 s is the "
            "least.",
        ),
        (
            {"outcome": pb.ROUTING_OUTCOME_LOADING, "decision_id": "x"},
            "Waited for a:1 to load the model: its cost of 0.420 s is the least.",
        ),
        (
            {"outcome": pb.ROUTING_OUTCOME_REFUSED, "backend_id": ""},
            "Would be refused: no backend is a candidate.",
        ),
        ({"outcome": 99}, "Outcome: 99."),
        (
            {"reason": pb.ROUTING_REASON_ONLY_CANDIDATE},
            "Would be sent to a:1 now: it is the only candidate.",
        ),
        (
            {"reason": pb.ROUTING_REASON_ROUND_ROBIN_FALLBACK},
            "Would be sent to a:1 now: no backend is healthy, and it is its turn.",
        ),
        ({"reason": 99}, "Would be sent to a:1 now: reason 99."),
        ({"candidates": []}, "Would be sent to a:1 now: its cost is the least."),
    ],
)
def test_an_outcome_is_one_sentence(fields, sentence):
    assert describe_outcome(decision(**fields)) == sentence


def test_a_decision_that_is_too_old_is_said_plainly(services, refuse):
    services.answers["Explain"] = lambda _request, context: refuse(
        context, grpc.StatusCode.NOT_FOUND, "DECISION_NOT_FOUND", "No decision a1-17 is known."
    )
    result = services.run("explain", "--decision", "a1-17")
    assert result.exit_code == 1
    assert "DECISION_NOT_FOUND (rag.pannier): No decision a1-17 is known." in result.stderr
