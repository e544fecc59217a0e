"""What the fleet is and does, as the protos show it; all of it from memory."""

from google.protobuf.timestamp_pb2 import Timestamp

from pannier.balancer.v1 import balancer_service_pb2 as pb
from services.balancer.convert import duration
from services.balancer.core.models import Capability, FleetModel
from services.balancer.core.pages import page_of
from services.balancer.fleet import Backend, Fleet

__all__ = ["fleet_health", "fleet_models", "fleet_stats"]

_CAPABILITIES = {
    Capability.COMPLETION: pb.MODEL_CAPABILITY_COMPLETION,
    Capability.EMBEDDING: pb.MODEL_CAPABILITY_EMBEDDING,
}


def fleet_stats(fleet: Fleet) -> pb.GetStatsResponse:
    """Reports counters, response times and load scores."""
    counters = fleet.counters
    scores = fleet.load_scores()
    return pb.GetStatsResponse(
        start_time=_timestamp(fleet.started_at),
        fleet=pb.FleetStats(
            backend_count=len(fleet.backends),
            healthy_backend_count=fleet.healthy_count,
            round_robin_fallback=fleet.healthy_count == 0,
            request_count=counters.request_count,
            failure_count=counters.failure_count,
            retry_count=counters.retry_count,
            cancelled_count=counters.cancelled_count,
            in_flight_count=counters.in_flight_count,
        ),
        backends=[
            _backend_stats(backend, scores[backend.id]) for backend in fleet.backends.values()
        ],
    )


def _backend_stats(backend: Backend, load_score_seconds: float) -> pb.BackendStats:
    stats = pb.BackendStats(
        backend_id=backend.id,
        healthy=backend.health.healthy,
        request_count=backend.request_count,
        failure_count=backend.failure_count,
        in_flight_count=backend.in_flight_count,
        load_score_seconds=load_score_seconds,
        in_flight_text_count=round(backend.outstanding.text_count),
    )
    if backend.success_count:
        average = backend.success_seconds / backend.success_count
        stats.average_response_time.CopyFrom(duration(average))
    if backend.checked_at is not None:
        stats.check_time.CopyFrom(_timestamp(backend.checked_at))
    if backend.first_token_seconds.known:
        stats.first_token_time.CopyFrom(duration(backend.first_token_seconds.value))
    if backend.speed.text_seconds is not None:
        stats.embedding_time.CopyFrom(duration(backend.speed.text_seconds))
    return stats


def fleet_health(fleet: Fleet) -> pb.GetHealthResponse:
    """Reports the health of every backend as the last check and the requests since left it."""
    scores = fleet.load_scores()
    return pb.GetHealthResponse(
        backends=[
            _backend_health(backend, scores[backend.id]) for backend in fleet.backends.values()
        ],
        healthy_backend_count=fleet.healthy_count,
    )


def _backend_health(backend: Backend, load_score_seconds: float) -> pb.BackendHealth:
    health = backend.health
    message = pb.BackendHealth(
        backend_id=backend.id,
        endpoint=backend.endpoint.url,
        load_score_seconds=load_score_seconds,
        consecutive_failure_count=health.consecutive_failure_count,
        last_failure=health.last_failure,
        version=backend.version,
        loaded_models=[model.name for model in backend.loaded],
    )
    if health.checked:
        message.state = pb.BACKEND_STATE_HEALTHY if health.healthy else pb.BACKEND_STATE_UNHEALTHY
    if backend.checked_at is not None:
        message.check_time.CopyFrom(_timestamp(backend.checked_at))
        message.check_duration.CopyFrom(duration(backend.check_seconds))
    return message


def fleet_models(fleet: Fleet, *, page_size: int, page_token: str) -> pb.ListModelsResponse:
    """Lists a page of the fleet's models.

    Args:
        fleet: The backends.
        page_size: Most models, at least 1.
        page_token: Token of the page before; empty for the first page.

    Raises:
        PageTokenMismatch: The token was not issued for this request.
    """
    models, next_page_token = page_of(
        fleet.models(),
        key=lambda each: each.key,
        size=page_size,
        token=page_token,
        request="ListModels",
    )
    return pb.ListModelsResponse(
        models=[_model(each) for each in models], next_page_token=next_page_token
    )


def _model(each: FleetModel) -> pb.Model:
    description = each.model.description
    capabilities = description.capabilities or frozenset()
    return pb.Model(
        name=each.model.name,
        digest=each.model.digest,
        size_bytes=each.model.size_bytes,
        capabilities=sorted(_CAPABILITIES[capability] for capability in capabilities),
        backend_ids=each.backend_ids,
        loaded_backend_ids=each.loaded_backend_ids,
        # Models that only generate have an embedding length too, of no use to a caller.
        embedding_dimension=(
            description.embedding_dimension if Capability.EMBEDDING in capabilities else 0
        ),
        context_token_count=description.context_token_count,
        drifted=each.drifted,
        family=each.model.family,
    )


def _timestamp(epoch_seconds: float) -> Timestamp:
    message = Timestamp()
    message.FromNanoseconds(round(epoch_seconds * 1e9))
    return message
