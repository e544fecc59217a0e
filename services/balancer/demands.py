"""Requests as the planner sees them: how much they are, and who could serve them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from zlib import crc32

from services.balancer.backend import ModelState
from services.balancer.core.demand import Demand, Kind, Priority
from services.balancer.core.errors import ModelCapabilityMissing, ModelNotFound
from services.balancer.core.names import model_key
from services.balancer.core.prefixes import Fingerprint, fingerprint
from services.balancer.core.requests import GenerationRequest, Operation, Routing
from services.balancer.fleet import Fleet
from services.common.clock import Clock
from services.common.deadline import remaining_seconds
from services.common.identity import current_identity

__all__ = ["Prepared", "embedding_demand", "generation_demand"]

# What a picture is worth in tokens differs by model; this is of the usual size.
_IMAGE_TOKENS = 1000
# What a request without a limit of its own is given room for in the context.
_OUTPUT_ROOM_TOKENS = 512
_LONGEST_OUTPUT_ROOM_TOKENS = 4096
# Somebody reads the answer while it comes, except where nobody waits for it: then its end counts.
_STREAM_DECODE_WEIGHT = 0.3
_BATCH_DECODE_WEIGHT = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request, ready for the queue.

    Attributes:
        demand: What the planner sees.
        character_count: Length of the prompt; 0 where pictures are part of it.
        prefix: Fingerprint of the prompt.
    """

    demand: Demand
    character_count: int
    prefix: Fingerprint


def generation_demand(
    fleet: Fleet, clock: Clock, request: GenerationRequest, number: int
) -> Prepared:
    """Says what a request for text asks of the fleet.

    Args:
        fleet: The backends.
        clock: The time.
        request: The request.
        number: Its number.

    Raises:
        ModelNotFound: No backend has the model.
        ModelCapabilityMissing: The model cannot do this.
    """
    kind = Kind.CHAT if request.operation is Operation.CHAT else Kind.GENERATE
    now = clock.monotonic()
    key, digest, placement_key = _identify(fleet, request.model, kind, request.routing)
    parts = tuple(_parts(request))
    characters = sum(map(len, parts))
    images = (*request.images, *(image for each in request.messages for image in each.images))
    tokens = fleet.estimates.token_count(placement_key, characters, now)
    tokens += len(images) * _IMAGE_TOKENS
    tenant = current_identity.get().tenant_id
    limit = request.sampling.max_output_token_count
    prefix = fingerprint(parts, salt=" ".join(str(crc32(image)) for image in images))
    demand = Demand(
        id=number,
        model_key=key,
        digest=digest,
        kind=kind,
        tenant=tenant,
        priority=request.routing.priority,
        arrived_at=now,
        deadline=_deadline(now),
        prompt_token_count=tokens,
        output_token_count=fleet.lengths.median(placement_key, kind, tenant, cap=limit, now=now),
        output_limit=limit,
        context_token_count=_context_token_count(
            fleet, request, fleet.estimates.most_tokens(placement_key, tokens)
        ),
        decode_weight=_decode_weight(request.routing.priority),
        prefix_hits=fleet.prefixes.hits(placement_key, prefix, tokens),
        maximum_wait_seconds=request.routing.maximum_wait_seconds,
    )
    return Prepared(demand=demand, character_count=0 if images else characters, prefix=prefix)


def _decode_weight(priority: Priority) -> float:
    return _BATCH_DECODE_WEIGHT if priority is Priority.BATCH else _STREAM_DECODE_WEIGHT


def _context_token_count(fleet: Fleet, request: GenerationRequest, most_prompt_tokens: int) -> int:
    """Returns the context window that a request needs, of those that models are loaded with."""
    limit = request.sampling.max_output_token_count or _OUTPUT_ROOM_TOKENS
    needed = most_prompt_tokens + min(limit, _LONGEST_OUTPUT_ROOM_TOKENS)
    wanted = max(request.sampling.context_token_count or 0, needed)
    # No load can give it more.
    return min(wanted, fleet.policy.context_classes[-1])


def embedding_demand(
    fleet: Fleet,
    clock: Clock,
    model: str,
    texts: Sequence[str],
    routing: Routing,
    number: int,
) -> Demand:
    """Says what texts to be embedded ask of the fleet.

    Raises:
        ModelNotFound: No backend has the model.
        ModelCapabilityMissing: The model cannot do this.
    """
    now = clock.monotonic()
    key, digest, placement_key = _identify(fleet, model, Kind.EMBED, routing)
    characters = sum(map(len, texts))
    return Demand(
        id=number,
        model_key=key,
        digest=digest,
        kind=Kind.EMBED,
        tenant=current_identity.get().tenant_id,
        priority=routing.priority,
        arrived_at=now,
        deadline=_deadline(now),
        prompt_token_count=fleet.estimates.token_count(placement_key, characters, now),
        output_token_count=0.0,
        text_count=len(texts),
        maximum_wait_seconds=routing.maximum_wait_seconds,
    )


def _identify(
    fleet: Fleet, model: str, kind: Kind, routing: Routing
) -> tuple[str, str | None, str]:
    """Finds the variant of the model that will serve: its key, its digest, its placement key."""
    key = model_key(model)
    states = [
        state
        for backend in fleet.backends.values()
        if (state := (backend.models or {}).get(key)) is not None
    ]
    unknown = any(backend.models is None for backend in fleet.backends.values())
    digest = routing.model_digest or fleet.needed_digest(key)
    matching = [each for each in states if digest in (None, each.installed.digest)]
    if not matching and not unknown:
        missing = model if not states else f"{model} with digest {digest}"
        raise ModelNotFound(missing, fleet.model_names())
    capable = [each for each in matching if each.installed.can(kind.capability)]
    if matching and not capable and not unknown:
        raise ModelCapabilityMissing(model, kind.capability.value)
    return key, digest, _placement_key(capable, key)


def _placement_key(states: list[ModelState], key: str) -> str:
    return states[0].placement_key if states else key


def _parts(request: GenerationRequest) -> Iterator[str]:
    """The prompt's text in the order in which the model reads it."""
    for tool in request.tools:
        yield tool.name
        yield tool.description
        yield tool.parameters_json_schema
    if request.system:
        yield request.system
    for message in request.messages:
        yield message.role.value
        yield message.content
        for call in message.tool_calls:
            yield call.arguments_json
    if request.prompt:
        yield request.prompt
    if request.suffix:
        yield request.suffix


def _deadline(now: float) -> float | None:
    remaining = remaining_seconds()
    return None if remaining is None else now + remaining
