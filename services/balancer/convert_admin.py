"""Requests of operators, and those about decisions and statistics, checked and turned into ours."""

from dataclasses import replace

from google.protobuf.duration_pb2 import Duration

from pannier.balancer.v1 import balancer_service_pb2 as pb
from services.balancer.convert import chat_request, embedding_request, generation_request
from services.balancer.convert_checks import model_violations
from services.balancer.core.requests import EmbeddingRequest, GenerationRequest
from services.balancer.settings import Endpoint, parse_endpoint
from services.common.errors import FieldViolation, InvalidRequest

__all__ = [
    "check_model",
    "endpoint",
    "explain_subject",
    "grace_seconds",
    "watch_interval_seconds",
]

_DEFAULT_GRACE_SECONDS = 60.0
_DEFAULT_INTERVAL_SECONDS = 1.0


def endpoint(request: pb.AddBackendRequest) -> Endpoint:
    """Reads where a backend listens.

    Raises:
        InvalidRequest: It is no address.
    """
    try:
        return parse_endpoint(request.endpoint)
    except ValueError as error:
        raise InvalidRequest(FieldViolation("endpoint", f"Must be an address: {error}.")) from None


def check_model(model: str) -> None:
    """Checks the name of a model.

    Raises:
        InvalidRequest: It is none.
    """
    violations = tuple(model_violations(model))
    if violations:
        raise InvalidRequest(*violations)


def grace_seconds(request: pb.RemoveBackendRequest) -> float:
    """Reads how long requests under way may take to end.

    Raises:
        InvalidRequest: It is out of range.
    """
    if not request.HasField("grace"):
        return _DEFAULT_GRACE_SECONDS
    return _seconds("grace", request.grace, 0.0, 3600.0, "0 s to 1 h")


def watch_interval_seconds(request: pb.WatchStatsRequest) -> float:
    """Reads the time between two reports.

    Raises:
        InvalidRequest: It is out of range.
    """
    if not request.HasField("interval"):
        return _DEFAULT_INTERVAL_SECONDS
    return _seconds("interval", request.interval, 0.1, 60.0, "100 ms to 60 s")


def _seconds(field: str, value: Duration, low: float, high: float, rule: str) -> float:
    seconds = value.seconds + value.nanos * 1e-9
    if not low <= seconds <= high:
        raise InvalidRequest(FieldViolation(field, f"Must be from {rule}."))
    return seconds


def explain_subject(request: pb.ExplainRequest) -> GenerationRequest | EmbeddingRequest | str:
    """Reads what is to be explained: a request, or the id of a decision.

    Raises:
        InvalidRequest: There is neither, or the request breaks rules.
    """
    kind = request.WhichOneof("subject")
    if kind is None or (kind == "decision_id" and not request.decision_id):
        raise InvalidRequest(
            FieldViolation("subject", "Must be chat, generate, embed or decision_id.")
        )
    try:
        match kind:
            case "chat":
                return chat_request(request.chat)
            case "generate":
                return generation_request(request.generate)
            case "embed":
                return embedding_request(request.embed)
            case _:
                return request.decision_id
    except InvalidRequest as error:
        violations = (replace(each, field=f"{kind}.{each.field}") for each in error.violations)
        raise InvalidRequest(*violations) from None
