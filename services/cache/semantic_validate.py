"""The rules that requests of the semantic layer must keep; all breaches are reported at once."""

from pannier.cache.v1 import semantic_pb2 as pb
from services.cache.core.frames import MAXIMUM_PAYLOAD_BYTES
from services.cache.core.layers import Layer
from services.cache.core.semantic.entries import split_entry_id
from services.cache.validate import (
    MAXIMUM_QUERY_LENGTH,
    Violations,
    check,
    control_violations,
    digest_violations,
    is_elapsed_time,
    keeping_violations,
    length_violations,
    namespace_violations,
    vector_violations,
)
from services.common.errors import FieldViolation, InvalidRequest

__all__ = ["dimension_mismatch", "validate_lookup", "validate_report", "validate_store"]

_MAXIMUM_FINGERPRINT_LENGTH = 200
# The longest tag of a language that BCP 47 asks implementations to bear.
_MAXIMUM_LANGUAGE_LENGTH = 35
_MAXIMUM_COLLECTIONS = 64
_MAXIMUM_EVIDENCE = 64
_MAXIMUM_DOCUMENT_LENGTH = 1_000
_MAXIMUM_NAME_LENGTH = 200

_REQUIRED = "Must be set."


def validate_lookup(request: pb.LookupSemanticRequest) -> None:
    """Checks a lookup.

    Raises:
        InvalidRequest: Fields break rules; the first 16 of them are named.
    """
    check(_lookup(request))


def validate_store(request: pb.StoreSemanticRequest, *, payload_bytes: int) -> None:
    """Checks an answer handed over.

    Args:
        request: The request.
        payload_bytes: Size of what is kept of it.

    Raises:
        InvalidRequest: Fields break rules; the first 16 of them are named.
    """
    check(_store(request, payload_bytes))


def validate_report(request: pb.ReportOutcomeRequest) -> None:
    """Checks a report.

    Raises:
        InvalidRequest: Fields break rules; the first 16 of them are named.
    """
    check(_report(request))


def dimension_mismatch(dimension: int, given: int) -> InvalidRequest:
    """Makes the error of a vector that does not fit its partition.

    Args:
        dimension: Components of the partition's vectors.
        given: Components of this one.
    """
    rule = f"Must be {dimension} like that of the partition's vectors; it is {given}."
    return InvalidRequest(FieldViolation("vector.dimension", rule))


def _lookup(request: pb.LookupSemanticRequest) -> Violations:
    yield from _partition(request.HasField("partition"), request.partition)
    yield from _query(request.query)
    if request.HasField("vector"):
        yield from vector_violations("vector", request.vector)
    yield from control_violations("control", request.control)
    if request.HasField("min_similarity") and not 0.0 <= request.min_similarity <= 1.0:
        yield FieldViolation("min_similarity", "Must be from 0 to 1.")
    if len(request.collections) > _MAXIMUM_COLLECTIONS:
        yield FieldViolation("collections", f"Must be at most {_MAXIMUM_COLLECTIONS}.")
    for index, collection in enumerate(request.collections):
        yield from length_violations(f"collections[{index}]", collection, _MAXIMUM_NAME_LENGTH)


def _store(request: pb.StoreSemanticRequest, payload_bytes: int) -> Violations:
    yield from _partition(request.HasField("partition"), request.partition)
    yield from _query(request.query)
    if request.HasField("vector"):
        yield from vector_violations("vector", request.vector)
    else:
        yield FieldViolation("vector", _REQUIRED)
    if not request.HasField("answer"):
        yield FieldViolation("answer", _REQUIRED)
    elif payload_bytes > MAXIMUM_PAYLOAD_BYTES:
        yield FieldViolation(
            "answer",
            f"Must have at most {MAXIMUM_PAYLOAD_BYTES} bytes together with its evidence; "
            f"they have {payload_bytes}.",
        )
    if len(request.evidence) > _MAXIMUM_EVIDENCE:
        yield FieldViolation("evidence", f"Must be at most {_MAXIMUM_EVIDENCE}.")
    for index, evidence in enumerate(request.evidence):
        yield from _evidence(f"evidence[{index}]", evidence)
    yield from keeping_violations("control", request.control, layer=Layer.SEMANTIC)
    for name in ("prompt_token_count", "completion_token_count"):
        if getattr(request.usage, name) < 0:
            yield FieldViolation(f"usage.{name}", "Must not be negative.")
    if not is_elapsed_time(request.generation_time):
        yield FieldViolation("generation_time", "Must be a duration of 0 or more.")


def _report(request: pb.ReportOutcomeRequest) -> Violations:
    yield from _partition(request.HasField("partition"), request.partition)
    if split_entry_id(request.entry_id) is None:
        yield FieldViolation("entry_id", "Must be the entry_id of a match.")
    if not -1.0 <= request.similarity <= 1.0:
        yield FieldViolation("similarity", "Must be from -1 to 1.")
    for name, kinds in (("verdict", pb.MatchVerdict), ("judge", pb.MatchJudge)):
        value = getattr(request, name)
        if value == 0 or value not in kinds.values():
            yield FieldViolation(name, "Must be one of the values that this release knows.")


def _partition(given: bool, partition: pb.SemanticPartition) -> Violations:  # noqa: FBT001
    if not given:
        yield FieldViolation("partition", _REQUIRED)
        return
    yield from digest_violations(
        "partition.embedding_model_digest", partition.embedding_model_digest
    )
    if partition.model_digest:
        yield from digest_violations("partition.model_digest", partition.model_digest)
    yield from namespace_violations("partition.namespace", partition.namespace)
    for name, maximum in (
        ("access_fingerprint", _MAXIMUM_FINGERPRINT_LENGTH),
        ("configuration_fingerprint", _MAXIMUM_FINGERPRINT_LENGTH),
        ("language", _MAXIMUM_LANGUAGE_LENGTH),
    ):
        if len(getattr(partition, name)) > maximum:
            yield FieldViolation(f"partition.{name}", f"Must have at most {maximum} characters.")


def _query(query: str) -> Violations:
    yield from length_violations("query", query, MAXIMUM_QUERY_LENGTH)
    if query and not query.strip():
        yield FieldViolation("query", "Must hold more than white space.")


def _evidence(field: str, evidence: pb.Evidence) -> Violations:
    yield from length_violations(
        f"{field}.document_id", evidence.document_id, _MAXIMUM_DOCUMENT_LENGTH
    )
    yield from length_violations(f"{field}.passage_id", evidence.passage_id, _MAXIMUM_NAME_LENGTH)
    if len(evidence.content_digest) > _MAXIMUM_FINGERPRINT_LENGTH:
        yield FieldViolation(
            f"{field}.content_digest",
            f"Must have at most {_MAXIMUM_FINGERPRINT_LENGTH} characters.",
        )
