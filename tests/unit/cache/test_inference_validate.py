"""Faulty requests for answers are refused, with every field at fault."""

import pytest
from google.protobuf.duration_pb2 import Duration

from pannier.cache.v1 import cache_service_pb2 as pb
from pannier.cache.v1 import control_pb2
from pannier.common.v1 import generation_pb2 as generation
from services.cache.inference_validate import validate, validate_event
from services.common.errors import InvalidRequest

DIGEST = "0123456789abcdef" * 4
KEY = pb.InferenceKey(model_digest=DIGEST, prompt=pb.Prompt(text="why?"))
ANSWER = pb.Inference(text="because", finish_reason=generation.FINISH_REASON_STOP)
REQUIRED_FIELDS = ["key.model_digest", "key.input"]


def fields(request) -> list[str]:
    """Returns the fields found at fault."""
    check = validate_event if isinstance(request, pb.FillInferenceRequest) else validate
    try:
        check(request)
    except InvalidRequest as error:
        return [violation.field for violation in error.violations]
    return []


def key(**changes: object) -> pb.InferenceKey:
    changed = pb.InferenceKey()
    changed.CopyFrom(KEY)
    changed.MergeFrom(pb.InferenceKey(**changes))
    return changed


def conversation(*messages: generation.ChatMessage) -> pb.InferenceKey:
    return pb.InferenceKey(model_digest=DIGEST, conversation=pb.Conversation(messages=messages))


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (pb.InferenceKey(), REQUIRED_FIELDS),
        (pb.InferenceKey(model_digest=DIGEST, prompt=pb.Prompt()), ["key.prompt.text"]),
        (conversation(), ["key.conversation.messages"]),
        (
            conversation(generation.ChatMessage()),
            ["key.conversation.messages[0].role", "key.conversation.messages[0].content"],
        ),
        (key(namespace="Not allowed"), ["key.namespace"]),
        (key(top_logprob_count=-1), ["key.top_logprob_count"]),
        (
            key(sampling=generation.SamplingOptions(temperature=3.0, top_k=0)),
            ["key.sampling.temperature", "key.sampling.top_k"],
        ),
    ],
)
def test_keys_are_checked_in_every_request(wrong, expected) -> None:
    requests = [
        pb.LookupInferenceRequest(key=wrong),
        pb.StreamInferenceRequest(key=wrong),
        pb.StoreInferenceRequest(key=wrong, inference=ANSWER),
        pb.ExtendLeaseRequest(key=wrong, lease_token="t"),
        pb.ReleaseLeaseRequest(key=wrong, lease_token="t"),
    ]
    for request in requests:
        assert fields(request) == expected
    opening = pb.FillInferenceRequest(open=pb.FillOpening(key=wrong, lease_token="t"))
    assert fields(opening) == [field.replace("key", "open.key", 1) for field in expected]


def test_a_key_must_be_there() -> None:
    assert fields(pb.LookupInferenceRequest()) == ["key"]
    assert fields(pb.FillInferenceRequest(open=pb.FillOpening(lease_token="t"))) == ["open.key"]


@pytest.mark.parametrize("seconds", [Duration(), Duration(seconds=300), Duration(nanos=1)], ids=str)
def test_waits_within_bounds_are_fine(seconds) -> None:
    flight = pb.FlightOptions(wait_limit=seconds)
    assert fields(pb.LookupInferenceRequest(key=KEY, flight=flight)) == []


@pytest.mark.parametrize(
    ("questions", "expected"),
    [
        (["why?"] * 8, []),
        (["why?"] * 9, ["questions"]),
        (["why?", "", "x" * 8000, "x" * 8001], ["questions[1]", "questions[3]"]),
    ],
)
def test_questions_have_bounds(questions, expected) -> None:
    for kind in (pb.LookupInferenceRequest, pb.StreamInferenceRequest):
        assert fields(kind(key=KEY, questions=questions)) == expected


@pytest.mark.parametrize(
    "seconds",
    [Duration(seconds=-1), Duration(seconds=300, nanos=1), Duration(seconds=1, nanos=-1)],
    ids=str,
)
def test_waits_out_of_bounds_are_refused(seconds) -> None:
    flight = pb.FlightOptions(wait_limit=seconds)
    for kind in (pb.LookupInferenceRequest, pb.StreamInferenceRequest):
        assert fields(kind(key=KEY, flight=flight)) == ["flight.wait_limit"]


@pytest.mark.parametrize(
    ("seconds", "is_fine"),
    [
        (Duration(seconds=1), True),
        (Duration(seconds=120), True),
        (Duration(nanos=999_999_999), False),
        (Duration(seconds=120, nanos=1), False),
        (Duration(seconds=2, nanos=2_000_000_000), False),
    ],
)
def test_lease_times_have_bounds(seconds, is_fine) -> None:
    flight = pb.FlightOptions(lease_time=seconds)
    lookup = pb.LookupInferenceRequest(key=KEY, flight=flight)
    assert fields(lookup) == ([] if is_fine else ["flight.lease_time"])
    extension = pb.ExtendLeaseRequest(key=KEY, lease_token="t", lease_time=seconds)
    assert fields(extension) == ([] if is_fine else ["lease_time"])


@pytest.mark.parametrize("token", ["", "x" * 65])
def test_tokens_have_bounds(token) -> None:
    assert fields(pb.ExtendLeaseRequest(key=KEY, lease_token=token)) == ["lease_token"]
    assert fields(pb.ReleaseLeaseRequest(key=KEY, lease_token=token)) == ["lease_token"]
    opening = pb.FillInferenceRequest(open=pb.FillOpening(key=KEY, lease_token=token))
    assert fields(opening) == ["open.lease_token"]
    store = pb.StoreInferenceRequest(key=KEY, inference=ANSWER, lease_token=token)
    assert fields(store) == (["lease_token"] if token else [])


def test_answers_are_checked_when_they_are_stored() -> None:
    negative = pb.Inference(
        usage=generation.TokenUsage(prompt_token_count=-1, completion_token_count=-1),
        generation_time=Duration(seconds=-1),
    )
    assert fields(pb.StoreInferenceRequest(key=KEY, inference=negative)) == [
        "inference.text",
        "inference.finish_reason",
        "inference.usage.prompt_token_count",
        "inference.usage.completion_token_count",
        "inference.generation_time",
    ]
    tools = pb.Inference(
        tool_calls=[generation.ToolCall(name="search")],
        finish_reason=generation.FINISH_REASON_STOP,
    )
    assert fields(pb.StoreInferenceRequest(key=KEY, inference=tools)) == []


def test_controls_are_checked() -> None:
    lookup = control_pb2.LookupControl(max_age=Duration())
    for kind in (pb.LookupInferenceRequest, pb.StreamInferenceRequest):
        assert fields(kind(key=KEY, control=lookup)) == ["control.max_age"]
    store = control_pb2.StoreControl(ttl=Duration(seconds=86_401))
    request = pb.StoreInferenceRequest(key=KEY, inference=ANSWER, control=store)
    assert fields(request) == ["control.ttl"]
    opening = pb.FillOpening(key=KEY, lease_token="t", control=store)
    assert fields(pb.FillInferenceRequest(open=opening)) == ["open.control.ttl"]


def test_messages_of_failures_have_bounds() -> None:
    failure = pb.Failure(kind=pb.FAILURE_KIND_REJECTED, message="x" * 501)
    request = pb.ReleaseLeaseRequest(key=KEY, lease_token="t", failure=failure)
    assert fields(request) == ["failure.message"]


def test_kinds_of_failures_of_a_newer_release_are_no_fault() -> None:
    failure = pb.Failure(kind=99)  # type: ignore[arg-type]
    assert fields(pb.ReleaseLeaseRequest(key=KEY, lease_token="t", failure=failure)) == []
