"""Making values unreadable: what it would mean, and doing it.

It costs the same whatever the number of values: the store notes when it was, and older values count
no more.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.cache.core.layers import Layer
from services.cache.core.model import Scope
from services.cache.core.tags import TargetKind
from services.cache.levels import Levels

__all__ = ["Dependent", "Effect", "Inventory", "Target", "invalidate", "preview"]

# What is computed for lookups after the answer shall count, so that the time of the note is waited
# for: the store's next millisecond, or what its clocks may differ. Not longer, where one of them
# was set back.
_LONGEST_PAUSE_SECONDS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is to become unreadable.

    Attributes:
        kind: What it is.
        field: Its field among the tenant's notes; see `core.tags`.
        name: For a namespace or a model what a value's scope must say; for the rest the tag that a
            value must have.
    """

    kind: TargetKind
    field: str
    name: str = ""


class Dependent(Protocol):
    """A value of this replica's memory, as far as it matters here."""

    @property
    def scope(self) -> Scope:
        """What it belongs to."""
        ...

    @property
    def created_ms(self) -> int:
        """When its computation began, by the store's clock."""
        ...

    @property
    def tags(self) -> tuple[str, ...]:
        """What it depends on."""
        ...


Inventory = Callable[[], Sequence[Dependent]]
"""Returns what a part of this replica's memory holds at this moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What an invalidation means.

    Attributes:
        epoch_ms: Its time by the store's clock, milliseconds since the Unix epoch.
        entry_counts: For each target the values of this replica's memory that it applies to.
        previous_ms: For each target when it was last invalidated; 0 where that is not known.
    """

    epoch_ms: int
    entry_counts: tuple[int, ...]
    previous_ms: tuple[int, ...]


async def preview(
    levels: Levels, semantic: Inventory, tenant_id: str, targets: Sequence[Target]
) -> Effect:
    """Says what an invalidation would mean, by what the store says now.

    Args:
        levels: Where values are.
        semantic: Holds the answers to questions that mean the same.
        tenant_id: Whose values.
        targets: What would become unreadable, at least one.

    Raises:
        StoreFailure: The store is away or too slow.
    """
    await levels.epochs.refresh(tenant_id)
    return Effect(
        epoch_ms=levels.store_now_ms(),
        entry_counts=await _count(levels, semantic, tenant_id, targets),
        previous_ms=tuple(
            levels.epochs.invalidated_at(tenant_id, target.field) for target in targets
        ),
    )


async def invalidate(levels: Levels, tenant_id: str, targets: Sequence[Target]) -> Effect:
    """Makes values unreadable, on all replicas, those being computed right now included.

    They are not counted: it takes the same time whatever their number.

    Args:
        levels: Where values are.
        tenant_id: Whose values.
        targets: What is to become unreadable, at least one.

    Raises:
        StoreFailure: The store is away, too slow or refuses; whether it was done is not known.
    """
    await levels.epochs.refresh(tenant_id)
    bump = await levels.epochs.bump(tenant_id, [target.field for target in targets])
    for target in targets:
        levels.recorder.invalidated(target.kind)
    until_later = (bump.epoch_ms + 1 - levels.store_now_ms()) / 1000
    await levels.clock.sleep(min(max(0.0, until_later) * 1.01, _LONGEST_PAUSE_SECONDS))
    return Effect(
        epoch_ms=bump.epoch_ms,
        entry_counts=(0,) * len(targets),
        previous_ms=bump.previous_ms,
    )


async def _count(
    levels: Levels, semantic: Inventory, tenant_id: str, targets: Sequence[Target]
) -> tuple[int, ...]:
    # An answer is one entry with its question, wherever it is.
    exact = [
        value
        for layer, local in levels.local.items()
        if layer is not Layer.SEMANTIC
        for value in local.values()
    ]
    questions = semantic()
    # Some hundred thousand values take a good part of a second.
    return await asyncio.to_thread(_count_all, levels, tenant_id, targets, exact, questions)


def _count_all(
    levels: Levels,
    tenant_id: str,
    targets: Sequence[Target],
    exact: Sequence[Dependent],
    questions: Sequence[Dependent],
) -> tuple[int, ...]:
    answers = _readable(levels, tenant_id, questions)
    values = [*_readable(levels, tenant_id, exact), *answers]
    return tuple(
        sum(
            _applies(target, value)
            for value in (answers if target.kind is TargetKind.GROWN_COLLECTION else values)
        )
        for target in targets
    )


def _readable(levels: Levels, tenant_id: str, values: Iterable[Dependent]) -> list[Dependent]:
    return [
        value
        for value in values
        if value.scope.tenant_id == tenant_id
        and levels.epochs.is_valid(value.scope, value.created_ms, value.tags)
    ]


def _applies(target: Target, value: Dependent) -> bool:
    match target.kind:
        case TargetKind.EVERYTHING:
            return True
        case TargetKind.NAMESPACE:
            return value.scope.namespace == target.name
        case TargetKind.MODEL_DIGEST:
            return value.scope.model_digest == target.name
        case _:
            return target.name in value.tags
