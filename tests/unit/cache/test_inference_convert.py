"""Answers and leases cross the border between protobuf and the core unchanged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pannier.cache.v1 import cache_service_pb2 as pb
from pannier.common.v1 import generation_pb2 as generation
from services.cache import inference_convert
from services.cache.core.failures import Failure, FailureKind, KnownFailure
from services.cache.core.fills import Part
from services.cache.core.inference import Finding, Kind
from services.cache.core.leases import Lease
from services.cache.core.model import Hit, Level
from services.cache.stream_inference import Broken

DIGEST = "0123456789abcdef" * 4
KEY = pb.InferenceKey(model_digest=DIGEST, prompt=pb.Prompt(text="why?"))
PEPPER = b"a secret of the tests"
STOP, LENGTH = generation.FINISH_REASON_STOP, generation.FINISH_REASON_LENGTH


@given(st.text(max_size=9000), st.text(max_size=9000))
def test_a_stored_answer_is_read_out_whole_in_pieces_the_thoughts_first(text, thinking) -> None:
    payload = pb.Inference(text=text, thinking=thinking).SerializeToString()
    pieces = list(inference_convert.read_pieces(payload))
    parts = [piece.part for piece in pieces]
    assert parts == sorted(parts, key=[Part.THINKING, Part.TEXT].index)
    for part, whole in ((Part.TEXT, text), (Part.THINKING, thinking)):
        assert "".join(piece.text for piece in pieces if piece.part is part) == whole
    assert all(0 < len(piece.text.encode()) <= 4096 for piece in pieces)


@pytest.mark.parametrize(
    ("inference", "limit", "expected"),
    [
        (pb.Inference(text="x", finish_reason=STOP), None, True),
        (pb.Inference(text="x", finish_reason=LENGTH), None, False),
        (pb.Inference(text="x", finish_reason=LENGTH), 5, True),
        (pb.Inference(text="", finish_reason=STOP), None, False),
        (pb.Inference(text="", thinking="hm", finish_reason=STOP), None, False),
        (pb.Inference(text="x", finish_reason=77), None, False),
        (
            pb.Inference(tool_calls=[generation.ToolCall(name="t")], finish_reason=STOP),
            None,
            True,
        ),
    ],
)
def test_only_whole_answers_are_reusable(inference, limit, expected) -> None:
    key = pb.InferenceKey()
    key.CopyFrom(KEY)
    if limit is not None:
        key.sampling.max_output_token_count = limit
    assert inference_convert.new_inference(key, inference).is_reusable is expected


def test_a_lease_comes_with_its_time_by_the_stores_clock() -> None:
    lease = inference_convert.lease(Lease(token="1700000000123456-x", seconds=12.5))
    assert lease.token == "1700000000123456-x"
    assert lease.duration.ToMilliseconds() == 12_500
    assert lease.grant_time.ToMilliseconds() == 1_700_000_000_123


def test_a_hit_tells_its_age_and_how_long_it_stays() -> None:
    hit = Hit(payload=b"", level=Level.SHARED, created_ms=1, age_seconds=3.0, remaining_seconds=7.0)
    response = inference_convert.lookup_response(Finding(kind=Kind.SHARED, read_ms=5, hit=hit))
    assert response.outcome == pb.LOOKUP_OUTCOME_HIT_SHARED
    assert (response.age.seconds, response.remaining.seconds) == (3, 7)
    assert response.read_time.ToMilliseconds() == 5
    assert not response.HasField("lease")
    assert not response.HasField("failure")
    assert not response.HasField("inference")


@pytest.mark.parametrize("kind", FailureKind)
def test_failures_survive_the_way_there_and_back(kind) -> None:
    known = KnownFailure(Failure(kind, "why not"), 12.0)
    response = inference_convert.lookup_response(
        Finding(kind=Kind.NEGATIVE, read_ms=1, failure=known)
    )
    assert inference_convert.failure(response.failure) == known.failure
    assert response.failure.remaining.seconds == 12
    event = inference_convert.stream_response(Broken(known.failure))
    assert inference_convert.failure(event.interrupted.failure) == known.failure
    assert not event.interrupted.HasField("lease")


def test_kinds_of_failures_of_a_newer_release_are_unspecified() -> None:
    newer = pb.Failure(kind=99)  # type: ignore[arg-type]
    assert inference_convert.failure(newer).kind is FailureKind.UNSPECIFIED


@pytest.mark.parametrize("kind", Kind)
def test_every_finding_has_an_outcome(kind) -> None:
    response = inference_convert.lookup_response(Finding(kind=kind, read_ms=1))
    assert response.outcome != pb.LOOKUP_OUTCOME_UNSPECIFIED


def test_streaming_and_not_streaming_ask_for_the_same_entry() -> None:
    options = {"tenant_id": "acme", "pepper": PEPPER}
    unary = inference_convert.query(pb.LookupInferenceRequest(key=KEY), **options)
    stream = inference_convert.query(
        pb.StreamInferenceRequest(key=KEY, mode="rag", flight=pb.FlightOptions()), **options
    )
    assert unary.key == stream.key == inference_convert.entry(KEY, **options)[0]
    assert unary.wish is None
    assert stream.wish is not None
