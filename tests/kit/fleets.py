"""Fleets and queues for tests of the planner: short to write, and random ones."""

import math
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from services.balancer.core.demand import Demand, Kind, Priority
from services.balancer.core.models import Capability
from services.balancer.core.snapshot import (
    BackendView,
    ModelView,
    Policy,
    Residency,
    Room,
    Snapshot,
)

__all__ = [
    "CHAT",
    "EMBEDDING",
    "NOW",
    "a_backend",
    "a_demand",
    "a_fleet",
    "a_model",
    "fleets",
    "queues",
    "ties",
]

NOW = 1000.0
CHAT = frozenset({Capability.COMPLETION})
EMBEDDING = frozenset({Capability.EMBEDDING})

_KEYS = ("chat", "code", "embed")


def a_model(speed: float = 1.0, **fields: Any) -> ModelView:
    """A model in memory that reads 1,000 and writes 50 tokens per second at speed 1."""
    defaults: dict[str, Any] = {
        "digest": "a" * 64,
        "capabilities": CHAT,
        "residency": Residency.WARM,
        "slot_count": 1,
        "size_bytes": 10,
        "load_seconds": 10.0,
        "prefill_rate": 1000.0 * speed,
        "decode_rates": (50.0 * speed, 30.0 * speed),
    }
    return ModelView(**(defaults | fields))


def a_backend(
    name: str, models: Mapping[str, ModelView] | None = None, **fields: Any
) -> BackendView:
    """A backend; a model named `chat` is in its memory unless models are given."""
    return BackendView(id=name, models={"chat": a_model()} if models is None else models, **fields)


def a_fleet(*backends: BackendView, **fields: Any) -> Snapshot:
    """A fleet as of `NOW`; `policy` may be given as a mapping."""
    policy = fields.pop("policy", {})
    return Snapshot(now=NOW, backends=backends, policy=Policy(**policy), **fields)


def a_demand(number: int = 0, **fields: Any) -> Demand:
    """A chat with 500 tokens to read and 100 to write: 2.5 s at speed 1."""
    defaults: dict[str, Any] = {
        "model_key": "chat",
        "kind": Kind.CHAT,
        "tenant": "default",
        "priority": Priority.INTERACTIVE,
        "arrived_at": NOW,
        "prompt_token_count": 500,
        "output_token_count": 100.0,
    }
    return Demand(id=number, **(defaults | fields))


def ties(snapshot: Snapshot) -> dict[str, float]:
    """Numbers that decide in the order of the backends."""
    return {view.id: index / 100 for index, view in enumerate(snapshot.backends)}


_residencies = st.sampled_from(
    [Residency.WARM, Residency.WARM, Residency.INSTALLED, Residency.UNLOADING]
)


@st.composite
def _models(draw: st.DrawFn, key: str, residency: Residency) -> ModelView:
    slot_count = draw(st.integers(1, 3))
    busy_count = draw(st.integers(0, slot_count + 1)) if residency is not Residency.INSTALLED else 0
    if residency is Residency.LOADING:
        busy_count = 0
    return ModelView(
        digest=draw(st.sampled_from(["a" * 64, "a" * 64, "b" * 64])),
        capabilities=draw(st.sampled_from([EMBEDDING if key == "embed" else CHAT, None])),
        residency=residency,
        slot_count=slot_count,
        busy_until=tuple(draw(st.floats(NOW - 5, NOW + 60)) for _ in range(busy_count)),
        ready_at=draw(st.floats(NOW - 1, NOW + 20)) if residency is Residency.LOADING else 0.0,
        context_token_count=draw(st.sampled_from([0, 4096, 16384])),
        maximum_context_token_count=draw(st.sampled_from([0, 8192, 32768])),
        size_bytes=draw(st.sampled_from([5, 10, 20])),
        pinned=draw(st.integers(0, 4)) == 0,
        used_at=draw(st.sampled_from([-math.inf, NOW - 300, NOW - 1])),
        loaded_at=draw(st.sampled_from([-math.inf, NOW - 300, NOW - 1])),
        load_seconds=draw(st.floats(0.5, 30)),
        prefill_rate=draw(st.floats(50, 5000)),
        decode_rates=tuple(draw(st.lists(st.floats(2, 100), min_size=1, max_size=3))),
        load_barred_until=draw(st.sampled_from([-math.inf, -math.inf, NOW + 30])),
    )


@st.composite
def _backends(draw: st.DrawFn, name: str) -> BackendView:
    if draw(st.integers(0, 9)) == 0:
        return BackendView(id=name, models=None, takes_requests=draw(st.booleans()))
    keys = draw(st.lists(st.sampled_from(_KEYS), unique=True))
    loading_key = draw(st.sampled_from([None, None, *keys]))
    models = {}
    for key in keys:
        residency = Residency.LOADING if key == loading_key else draw(_residencies)
        models[key] = draw(_models(key, residency))
    return BackendView(
        id=name,
        models=models,
        takes_requests=draw(st.integers(0, 4)) > 0,
        drained=draw(st.integers(0, 7)) == 0,
        loading_key=loading_key,
        loading_until=models[loading_key].ready_at if loading_key else 0.0,
        room=Room(
            model_limit=draw(st.integers(1, 3)),
            overflow_bytes=draw(st.sampled_from([25, math.inf])),
        ),
        surcharge_seconds=draw(st.sampled_from([0.0, 3.0])),
        failure_ratio=draw(st.sampled_from([0.0, 0.3, 1.0])),
        chosen_turn=draw(st.integers(0, 5)),
    )


@st.composite
def fleets(draw: st.DrawFn) -> Snapshot:
    """Up to five backends in all states."""
    names = [f"h{index}:11434" for index in range(draw(st.integers(1, 5)))]
    return Snapshot(
        now=NOW,
        backends=tuple(draw(_backends(name)) for name in names),
        policy=Policy(walk_limit=draw(st.sampled_from([3, 64]))),
        interactive_at=draw(st.sampled_from([{}, {"chat": NOW - 5}])),
    )


@st.composite
def _demands(draw: st.DrawFn, number: int) -> Demand:
    key = draw(st.sampled_from(_KEYS))
    kind = Kind.EMBED if key == "embed" else draw(st.sampled_from([Kind.CHAT, Kind.GENERATE]))
    chats = kind is not Kind.EMBED
    return Demand(
        id=number,
        model_key=key,
        digest=draw(st.sampled_from([None, None, "a" * 64])),
        kind=kind,
        tenant="default",
        priority=draw(st.sampled_from(Priority)),
        arrived_at=NOW - draw(st.sampled_from([0.0, 10.0, 200.0])),
        prompt_token_count=draw(st.integers(1, 4000)),
        output_token_count=draw(st.floats(1, 800)) if chats else 0.0,
        context_token_count=draw(st.sampled_from([0, 2000, 9000])) if chats else 0,
        prefix_hits=draw(st.sampled_from([{}, {"h0:11434": 300}])),
        tried=draw(st.sampled_from([frozenset(), frozenset({"h0:11434"})])),
    )


@st.composite
def queues(draw: st.DrawFn) -> list[Demand]:
    """Up to twelve demands for three models."""
    return [draw(_demands(number)) for number in range(draw(st.integers(0, 12)))]
