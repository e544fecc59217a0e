"""What a request asks of the fleet, as the planner sees it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum

from services.balancer.core.models import Capability

__all__ = ["Demand", "Kind", "Priority"]


class Priority(IntEnum):
    """Who goes first; the smaller, the sooner."""

    SYSTEM = 0
    INTERACTIVE = 1
    BATCH = 2

    @property
    def label(self) -> str:
        """Its name as a label of metrics."""
        return self.name.lower()


class Kind(Enum):
    """Kinds of work whose answers differ in length; the values serve as labels of metrics."""

    CHAT = "chat"
    GENERATE = "generate"
    EMBED = "embed"

    @property
    def capability(self) -> Capability:
        """What the model must be capable of."""
        return Capability.EMBEDDING if self is Kind.EMBED else Capability.COMPLETION


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """One request in the queue.

    Attributes:
        id: Number of the request, unique in this process.
        model_key: Key of the model.
        digest: The one variant of the model that will do; None where any does.
        kind: What is to be done.
        tenant: On whose behalf.
        priority: Who goes first.
        arrived_at: When it came, monotonic seconds.
        deadline: When its caller gives up, monotonic seconds; None where never.
        prompt_token_count: Tokens to be read, as estimated.
        output_token_count: Tokens to be generated, as predicted; 0 for embeddings.
        context_token_count: Context window that it needs; 0 for embeddings.
        decode_weight: How much the caller minds the time from the first token to the last, [0, 1].
        prefix_hits: Tokens of the prompt that backends are thought to remember, by backend id.
        tried: Backends that have failed it.
        maximum_wait_seconds: Longest predicted wait that its caller accepts; None for any.
        output_limit: Most tokens that it may generate; None where not limited.
        text_count: Texts to be embedded; 0 for others.
        expected: Whether it has not come yet, and room is to be left for it.
    """

    id: int
    model_key: str
    kind: Kind
    tenant: str
    priority: Priority
    arrived_at: float
    prompt_token_count: int
    output_token_count: float
    digest: str | None = None
    deadline: float | None = None
    context_token_count: int = 0
    decode_weight: float = 0.3
    prefix_hits: Mapping[str, int] = field(default_factory=dict)
    tried: frozenset[str] = frozenset()
    maximum_wait_seconds: float | None = None
    output_limit: int | None = None
    text_count: int = 0
    expected: bool = False
