"""What the fleet is and does, as the protos show it; all of it from memory."""

from collections.abc import Mapping

from google.protobuf.timestamp_pb2 import Timestamp

from pannier.balancer.v1 import balancer_service_pb2 as pb
from services.balancer.backend import Backend, ModelState
from services.balancer.convert import duration
from services.balancer.core.errors import ModelNotFound
from services.balancer.core.models import Capability, FleetModel
from services.balancer.core.names import model_key
from services.balancer.core.shares import Reservations
from services.balancer.core.snapshot import Residency
from services.balancer.core.standing import State, takes_requests
from services.balancer.drift import has_drifted
from services.balancer.equipment import Equipment
from services.balancer.fleet import Fleet
from services.common.clock import Clock
from services.common.pagination import decode_page_token, encode_page_token

__all__ = [
    "backend_health",
    "fleet_health",
    "fleet_model",
    "fleet_models",
    "fleet_stats",
    "timestamp",
]

_MODELS = "models"
# Ollama writes "never" as some date in the 24th century.
_FAR_FUTURE = 4102444800.0
_STATES = {
    State.UNKNOWN: pb.BACKEND_STATE_UNSPECIFIED,
    State.CLOSED: pb.BACKEND_STATE_HEALTHY,
    State.EJECTED: pb.BACKEND_STATE_UNHEALTHY,
    State.HALF_OPEN: pb.BACKEND_STATE_UNHEALTHY,
    State.RETURNING: pb.BACKEND_STATE_RETURNING,
    State.DRAINED: pb.BACKEND_STATE_DRAINED,
}

_CAPABILITIES = {
    Capability.COMPLETION: pb.MODEL_CAPABILITY_COMPLETION,
    Capability.EMBEDDING: pb.MODEL_CAPABILITY_EMBEDDING,
}


def fleet_stats(equipment: Equipment, reservations: Reservations) -> pb.GetStatsResponse:
    """Reports counters, response times and load scores."""
    fleet = equipment.fleet
    scores = fleet.load_scores()
    return pb.GetStatsResponse(
        start_time=timestamp(fleet.started_at),
        fleet=_totals(equipment, reservations),
        backends=[
            _backend_stats(equipment, backend, scores[backend.id])
            for backend in fleet.backends.values()
        ],
    )


def _totals(equipment: Equipment, reservations: Reservations) -> pb.FleetStats:
    fleet, counters = equipment.fleet, equipment.fleet.counters
    return pb.FleetStats(
        backend_count=len(fleet.backends),
        healthy_backend_count=fleet.healthy_count,
        round_robin_fallback=fleet.healthy_count == 0,
        request_count=counters.request_count,
        failure_count=counters.failure_count,
        retry_count=counters.retry_count,
        cancelled_count=counters.cancelled_count,
        in_flight_count=counters.in_flight_count,
        queues=_queues(equipment),
        refused_count=counters.refused_count,
        unreachable_deadline_count=counters.unreachable_deadline_count,
        model_load_count=counters.load_count,
        eviction_count=counters.eviction_count,
        retry_budget_ratio=equipment.retries.level(equipment.clock.monotonic()),
        replica_count=reservations.replica_count,
        slots_divided=reservations.divided,
    )


def _queues(equipment: Equipment) -> list[pb.QueueStats]:
    scheduler = equipment.scheduler
    waits = scheduler.longest_waits()
    queues = []
    for priority, count in scheduler.waiting_counts().items():
        queue = pb.QueueStats(
            priority=pb.Priority.Value(f"PRIORITY_{priority.name}"),
            waiting_count=count,
            limit=scheduler.limits.places(priority),
        )
        if priority in waits:
            queue.longest_wait.CopyFrom(duration(waits[priority]))
        queues.append(queue)
    return queues


def _backend_stats(
    equipment: Equipment, backend: Backend, load_score_seconds: float
) -> pb.BackendStats:
    text_count = sum(each.demand.text_count for each in backend.occupancies())
    stats = pb.BackendStats(
        backend_id=backend.id,
        healthy=takes_requests(backend.standing),
        request_count=backend.request_count,
        failure_count=backend.failure_count,
        in_flight_count=backend.in_flight_count,
        load_score_seconds=load_score_seconds,
        in_flight_text_count=text_count,
        state=_STATES[backend.standing.state],
        models=_model_stats(equipment, backend),
        ejection_count=backend.ejection_count,
        stall_count=backend.stall_count,
    )
    if backend.success_count:
        average = backend.success_seconds / backend.success_count
        stats.average_response_time.CopyFrom(duration(average))
    if backend.checked_at is not None:
        stats.check_time.CopyFrom(timestamp(backend.checked_at))
    if backend.first_token_seconds.known:
        stats.first_token_time.CopyFrom(duration(backend.first_token_seconds.value))
    if backend.text_seconds.known:
        stats.embedding_time.CopyFrom(duration(backend.text_seconds.value))
    return stats


def _model_stats(equipment: Equipment, backend: Backend) -> list[pb.LoadedModelStats]:
    return [
        _loaded_model(equipment, backend, state)
        for state in sorted(backend.states(), key=lambda each: each.key)
        if state.residency is not Residency.INSTALLED
    ]


def _loaded_model(equipment: Equipment, backend: Backend, state: ModelState) -> pb.LoadedModelStats:
    estimates, now = equipment.fleet.estimates, equipment.clock.monotonic()
    key = state.placement_key
    zombies = sum(each.zombie for each in state.occupancies.values())
    stats = pb.LoadedModelStats(
        model=state.installed.name,
        digest=state.installed.digest,
        residency=pb.ModelResidency.Value(f"MODEL_RESIDENCY_{state.residency.name}"),
        slot_count=state.slot_count,
        in_flight_count=len(state.occupancies) - zombies,
        zombie_count=zombies,
        context_token_count=state.context_token_count,
        pinned=state.pinned,
        prefill_tokens_per_second=estimates.prefill_rate(backend.id, key, now),
        decode_tokens_per_second=(
            0.0 if state.installed.only_embeds else estimates.decode_rate(backend.id, key, 1, now)
        ),
        predicted_load=duration(estimates.load_seconds(backend.id, key, state.size_bytes, now)),
    )
    if state.expires_at is not None and state.expires_at < _FAR_FUTURE:
        stats.expire_time.CopyFrom(timestamp(state.expires_at))
    return stats


def fleet_health(fleet: Fleet, clock: Clock) -> pb.GetHealthResponse:
    """Reports the health of every backend as the last check and the requests since left it."""
    scores = fleet.load_scores()
    drifted = _drifted_models(fleet)
    return pb.GetHealthResponse(
        backends=[
            _backend_health(backend, scores[backend.id], drifted, clock)
            for backend in fleet.backends.values()
        ],
        healthy_backend_count=fleet.healthy_count,
    )


def _drifted_models(fleet: Fleet) -> dict[str, str]:
    """Returns the digest that most backends have of each model that has drifted."""
    return {each.key: each.model.digest for each in fleet.models() if each.drifted}


def backend_health(fleet: Fleet, backend: Backend, clock: Clock) -> pb.BackendHealth:
    """Reports the health of one backend, which may have left meanwhile."""
    score = fleet.load_scores().get(backend.id, 0.0)
    return _backend_health(backend, score, _drifted_models(fleet), clock)


def _backend_health(
    backend: Backend, load_score_seconds: float, drifted: Mapping[str, str], clock: Clock
) -> pb.BackendHealth:
    standing = backend.standing
    message = pb.BackendHealth(
        backend_id=backend.id,
        endpoint=backend.endpoint.url,
        state=_STATES[standing.state],
        load_score_seconds=load_score_seconds,
        consecutive_failure_count=standing.consecutive_failure_count,
        last_failure=standing.last_failure,
        version=backend.version,
        loaded_models=[each.installed.name for each in backend.warm_models()],
        drifted_models=sorted(
            state.names[key]
            for key, state in (backend.models or {}).items()
            if has_drifted(state, drifted.get(key, state.installed.digest))
        ),
    )
    if backend.checked_at is not None:
        message.check_time.CopyFrom(timestamp(backend.checked_at))
        message.check_duration.CopyFrom(duration(backend.check_seconds))
    if backend.success_count:
        average = backend.success_seconds / backend.success_count
        message.average_response_time.CopyFrom(duration(average))
    if standing.state is State.EJECTED:
        wait = max(0.0, standing.ejected_until - clock.monotonic())
        message.retry_time.CopyFrom(timestamp(clock.now() + wait))
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
    # By the last model shown, so that models which come and go between two calls shift nothing.
    after = decode_page_token(_MODELS, page_token)
    rest = [each for each in fleet.models() if each.key > after]
    page = rest[:page_size]
    return pb.ListModelsResponse(
        models=[_model(each) for each in page],
        next_page_token=encode_page_token(_MODELS, page[-1].key) if len(rest) > page_size else "",
    )


def fleet_model(equipment: Equipment, model: str) -> pb.ShowModelResponse:
    """Describes one model and how each backend has it.

    Args:
        equipment: What knows the fleet.
        model: Its name.

    Raises:
        ModelNotFound: No backend has it.
    """
    fleet, key = equipment.fleet, model_key(model)
    found = next((each for each in fleet.models() if each.key == key), None)
    if found is None:
        raise ModelNotFound(model, fleet.model_names())
    return pb.ShowModelResponse(
        model=_model(found),
        backends=[
            _on_backend(equipment, fleet.backends[backend_id], key)
            for backend_id in found.backend_ids
        ],
    )


def _on_backend(equipment: Equipment, backend: Backend, key: str) -> pb.ModelOnBackend:
    state = equipment.fleet.model_of(backend, key)
    return pb.ModelOnBackend(
        backend_id=backend.id,
        healthy=takes_requests(backend.standing),
        size_bytes=state.installed.size_bytes,
        stats=_loaded_model(equipment, backend, state),
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


def timestamp(epoch_seconds: float) -> Timestamp:
    """Writes seconds since the epoch."""
    message = Timestamp()
    message.FromNanoseconds(round(epoch_seconds * 1e9))
    return message
