"""What the planner is shown of the fleet: plain figures, so that any plan can be made again."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from services.balancer.core.models import Capability

__all__ = ["BackendView", "ModelView", "Policy", "Residency", "Room", "Snapshot"]


class Residency(Enum):
    """Whether a model is in memory; the values serve as labels of metrics."""

    INSTALLED = "installed"
    LOADING = "loading"
    WARM = "warm"
    UNLOADING = "unloading"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """One model on one backend.

    Attributes:
        digest: 64 hexadecimal digits.
        capabilities: What it can do; None where not known.
        residency: Whether it is in memory.
        slot_count: Requests that it may be given at a time, at least 1.
        busy_until: When the requests that hold slots are predicted to end, monotonic seconds.
        ready_at: When a load under way is predicted to end, monotonic seconds.
        context_token_count: Context window that it is loaded with; 0 where not known.
        maximum_context_token_count: Longest context that it can be loaded with; 0 where not known.
        size_bytes: What it takes in memory, or on disk where that is not known.
        pinned: Whether it must stay in memory.
        used_at: When it was last given a request, monotonic seconds.
        loaded_at: When it came into memory, monotonic seconds.
        load_seconds: What loading it is predicted to take.
        prefill_rate: Tokens of a prompt read per second.
        decode_rates: Tokens of one answer per second, by the number of requests active on the
            backend from 1 on; the last one holds for more.
        overhead_seconds: What a request costs besides its tokens.
        load_barred_until: No load is tried before this after failed ones, monotonic seconds.
    """

    digest: str
    slot_count: int
    prefill_rate: float
    decode_rates: tuple[float, ...]
    load_seconds: float
    capabilities: frozenset[Capability] | None = None
    residency: Residency = Residency.INSTALLED
    busy_until: tuple[float, ...] = ()
    ready_at: float = 0.0
    context_token_count: int = 0
    maximum_context_token_count: int = 0
    size_bytes: int = 0
    pinned: bool = False
    used_at: float = -math.inf
    loaded_at: float = -math.inf
    overhead_seconds: float = 0.0
    load_barred_until: float = -math.inf

    def can(self, capability: Capability) -> bool:
        """Tells whether it can do something; a model of unknown capabilities may try."""
        return self.capabilities is None or capability in self.capabilities

    def holds(self, context_token_count: int) -> bool:
        """Tells whether, as loaded, its context suffices, or could not be larger anyway."""
        wanted = context_token_count
        if self.maximum_context_token_count:
            wanted = min(wanted, self.maximum_context_token_count)
        return self.context_token_count == 0 or wanted <= self.context_token_count

    def decode_rate(self, active_count: int) -> float:
        """Returns the tokens per second of one answer among so many active requests."""
        return self.decode_rates[min(max(active_count, 1), len(self.decode_rates)) - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """How many models a backend is thought to hold at a time.

    Attributes:
        model_limit: Most models.
        overflow_bytes: A set of models of this size, or of a greater one, has not fitted; a single
            model always may try.
    """

    model_limit: int = 3
    overflow_bytes: float = math.inf

    def fits(self, sizes_bytes: tuple[int, ...]) -> bool:
        """Tells whether models of these sizes fit together."""
        return len(sizes_bytes) <= 1 or (
            len(sizes_bytes) <= self.model_limit and sum(sizes_bytes) < self.overflow_bytes
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendView:
    """One backend.

    Attributes:
        id: Host and port.
        takes_requests: Whether failures have not put it out.
        drained: Whether an operator has taken it out.
        models: Its models by key; names of the same weights have the very same view. None where it
            was never reached.
        loading_key: The model that it loads or makes room for; None where it does neither.
        loading_until: When that is predicted to end, monotonic seconds.
        room: How many models it holds.
        surcharge_seconds: What a request there costs more because it has just come back.
        failure_ratio: Share of the attempts that fail there, [0, 1].
        chosen_turn: Number of the last decision that chose it; 0 for none.
    """

    id: str
    models: Mapping[str, ModelView] | None
    takes_requests: bool = True
    drained: bool = False
    loading_key: str | None = None
    loading_until: float = 0.0
    room: Room = Room()
    surcharge_seconds: float = 0.0
    failure_ratio: float = 0.0
    chosen_turn: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The planner's constants, all in seconds of the fleet's own time.

    Attributes:
        tie_seconds: Costs nearer than this are equal.
        tie_ratio: So are costs nearer than this share of the lower one.
        unload_seconds: What unloading a model to make room is predicted to take.
        retry_seconds: What a failed attempt is thought to cost besides the wait repeated.
        eviction_memory_seconds: A model unused for this long is missed 1/e as much as one in use.
        turn_ratio: How long the only copy of a model that is wanted stays in memory at least, while
            others want its room, as a multiple of what unloading it and getting it back takes.
        copy_gain_ratio: How many times the seconds that a further copy of a model saves those who
            wait for it now count against those of loading it: it serves those who come later, too.
        reserve_seconds: Batch work leaves the last free slot of a model to interactive work that
            came within this time.
        walk_limit: Most requests of the queue that a plan looks at.
        context_classes: Context windows that models are loaded with, ascending.
    """

    tie_seconds: float = 0.05
    tie_ratio: float = 0.03
    unload_seconds: float = 2.0
    retry_seconds: float = 2.0
    eviction_memory_seconds: float = 120.0
    turn_ratio: float = 2.0
    copy_gain_ratio: float = 4.0
    reserve_seconds: float = 60.0
    walk_limit: int = 64
    context_classes: tuple[int, ...] = (4096, 16384)

    def context_class(self, needed_token_count: int) -> int:
        """Returns the smallest class that holds so many tokens, or the largest."""
        return next(
            (size for size in self.context_classes if size >= needed_token_count),
            self.context_classes[-1],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The fleet at one instant.

    Attributes:
        now: The instant, monotonic seconds.
        backends: All backends.
        policy: The planner's constants.
        interactive_at: When interactive work last came for a model, by model key.
        yielding: What the last full plan leaves to fall idle, so that another model can be loaded:
            pairs of backend id and model key. Quick plans, which load nothing, give it no work.
    """

    now: float
    backends: tuple[BackendView, ...]
    policy: Policy = Policy()
    interactive_at: Mapping[str, float] = field(default_factory=dict)
    yielding: frozenset[tuple[str, str]] = frozenset()
