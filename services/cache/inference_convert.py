"""Protobuf to what answers and leases are in the core, and back."""

from collections.abc import Iterator
from dataclasses import replace

from pannier.cache.v1 import cache_service_pb2 as pb
from pannier.common.v1 import generation_pb2
from services.cache import convert
from services.cache.canonical import canonical_fields
from services.cache.core.failures import Failure, FailureKind, KnownFailure
from services.cache.core.fills import Part, Piece, split_text
from services.cache.core.inference import Finding, FlightWish, Kind, Query
from services.cache.core.keys import EntryKey, entry_key
from services.cache.core.layers import Layer
from services.cache.core.leases import Lease
from services.cache.core.model import Scope
from services.cache.core.savings import Savings
from services.cache.core.semantic.scope import scope_of_all
from services.cache.semantic_convert import SCOPES
from services.cache.store_inference import NewInference
from services.cache.stream_inference import Broken, Event, Followed

__all__ = [
    "entry",
    "failure",
    "lookup_response",
    "new_inference",
    "query",
    "read_pieces",
    "savings",
    "stream_response",
]

_OUTCOMES = {
    Kind.LOCAL: pb.LOOKUP_OUTCOME_HIT_LOCAL,
    Kind.SHARED: pb.LOOKUP_OUTCOME_HIT_SHARED,
    Kind.COALESCED: pb.LOOKUP_OUTCOME_HIT_COALESCED,
    Kind.NEGATIVE: pb.LOOKUP_OUTCOME_HIT_NEGATIVE,
    Kind.MISS: pb.LOOKUP_OUTCOME_MISS,
    Kind.WAITED: pb.LOOKUP_OUTCOME_MISS_WAITED,
    Kind.BYPASSED: pb.LOOKUP_OUTCOME_BYPASSED,
}
_FAILURE_KINDS = {
    FailureKind.UNSPECIFIED: pb.FAILURE_KIND_UNSPECIFIED,
    FailureKind.TRANSIENT: pb.FAILURE_KIND_TRANSIENT,
    FailureKind.MODEL_NOT_FOUND: pb.FAILURE_KIND_MODEL_NOT_FOUND,
    FailureKind.REJECTED: pb.FAILURE_KIND_REJECTED,
}
_KNOWN_KINDS = {number: kind for kind, number in _FAILURE_KINDS.items()}


def entry(key: pb.InferenceKey, *, tenant_id: str, pepper: bytes) -> tuple[EntryKey, Scope]:
    """Returns the keys of an answer, and what it belongs to.

    Args:
        key: Everything that decides the answer.
        tenant_id: Who calls.
        pepper: Secret of the installation.
    """
    scope = convert.scope(tenant_id, namespace=key.namespace, model_digest=key.model_digest)
    entry = entry_key(
        Layer.INFERENCE,
        tenant_id=tenant_id,
        namespace=scope.namespace,
        fields=canonical_fields(key),
        pepper=pepper,
    )
    return entry, scope


def query(
    request: pb.LookupInferenceRequest | pb.StreamInferenceRequest,
    *,
    tenant_id: str,
    pepper: bytes,
) -> Query:
    """Returns what a caller wants."""
    key, scope = entry(request.key, tenant_id=tenant_id, pepper=pepper)
    return Query(
        key=key,
        scope=scope,
        control=convert.control(request.control),
        mode=convert.mode_or_carried(request.mode),
        wish=_wish(request.flight) if request.HasField("flight") else None,
        question_scope=scope_of_all(request.questions),
    )


def new_inference(key: pb.InferenceKey, inference: pb.Inference) -> NewInference:
    """Returns an answer to keep."""
    return NewInference(
        payload=inference.SerializeToString(),
        is_reusable=_is_reusable(key, inference),
        cost=savings(inference),
    )


def savings(inference: pb.Inference) -> Savings:
    """Returns what an answer has cost, and a hit on it saves."""
    return Savings(
        inference.usage.prompt_token_count,
        inference.usage.completion_token_count,
        convert.seconds(inference.generation_time),
    )


def failure(message: pb.Failure) -> Failure:
    """Returns why a computation came to nothing; kinds unknown to this release are unspecified."""
    kind = _KNOWN_KINDS.get(message.kind, FailureKind.UNSPECIFIED)
    return Failure(kind, message.message)


def lease(given: Lease) -> pb.Lease:
    """Describes a lease to the one who has it."""
    return pb.Lease(
        token=given.token,
        duration=convert.duration(given.seconds),
        grant_time=convert.timestamp_from_ms(given.granted_ms),
    )


def lookup_response(
    finding: Finding, *, inference: pb.Inference | None = None
) -> pb.LookupInferenceResponse:
    """Describes what a lookup came to.

    Args:
        finding: What it came to.
        inference: The answer, where it belongs into the response.
    """
    response = pb.LookupInferenceResponse(
        outcome=_OUTCOMES[finding.kind],
        inference=inference,
        degraded=finding.degraded,
        lease=lease(finding.lease) if finding.lease is not None else None,
        read_time=convert.timestamp_from_ms(finding.read_ms),
        failure=_known_failure(finding.failure) if finding.failure is not None else None,
        scope=SCOPES[finding.question_scope],
    )
    if finding.hit is not None:
        response.age.CopyFrom(convert.duration(finding.hit.age_seconds))
        response.remaining.CopyFrom(convert.duration(finding.hit.remaining_seconds))
    return response


def stream_response(event: Event) -> pb.StreamInferenceResponse:
    """Describes an event of a stream."""
    match event:
        case Finding():
            return pb.StreamInferenceResponse(started=lookup_response(event))
        case Piece(Part.TEXT, text):
            return pb.StreamInferenceResponse(text_delta=text)
        case Piece(_, text):
            return pb.StreamInferenceResponse(thinking_delta=text)
        case Followed(hit):
            return pb.StreamInferenceResponse(completed=pb.Inference.FromString(hit.payload))
        case Broken(reason, given):
            return pb.StreamInferenceResponse(
                interrupted=pb.FillInterrupted(
                    failure=pb.Failure(kind=_FAILURE_KINDS[reason.kind], message=reason.message),
                    lease=lease(given) if given is not None else None,
                )
            )


def read_pieces(payload: bytes) -> Iterator[Piece]:
    """Reads a stored answer out in pieces, the thoughts first."""
    inference = pb.Inference.FromString(payload)
    for part, text in ((Part.THINKING, inference.thinking), (Part.TEXT, inference.text)):
        for each in split_text(text):
            yield Piece(part, each)


def _wish(flight: pb.FlightOptions) -> FlightWish:
    wish = FlightWish()
    if flight.HasField("wait_limit"):
        wish = replace(wish, wait_seconds=convert.seconds(flight.wait_limit))
    if flight.HasField("lease_time"):
        wish = replace(wish, lease_seconds=convert.seconds(flight.lease_time))
    return wish


def _known_failure(known: KnownFailure) -> pb.Failure:
    return pb.Failure(
        kind=_FAILURE_KINDS[known.failure.kind],
        message=known.failure.message,
        remaining=convert.duration(known.remaining_seconds),
    )


def _is_reusable(key: pb.InferenceKey, inference: pb.Inference) -> bool:
    """Returns whether an answer would do for the next caller.

    One that reached a limit does so only where the caller set that limit: otherwise a default cut
    it short, and defaults are no part of the key. Reasons unknown to this release do not.
    """
    if not (inference.text or inference.tool_calls):
        return False
    if inference.finish_reason == generation_pb2.FINISH_REASON_LENGTH:
        return key.sampling.HasField("max_output_token_count")
    return inference.finish_reason == generation_pb2.FINISH_REASON_STOP
