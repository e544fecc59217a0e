"""Who looks for what: counts by mode, and by tenant, in bounded memory."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from heapq import nlargest
from types import MappingProxyType

from services.cache.core.layers import Layer
from services.cache.core.savings import NOTHING, Savings
from services.cache.core.spans import HitKind

__all__ = ["TenantTally", "TenantTraffic", "Traffic"]

# Reaching the limit costs those with the fewest lookups their own entry; whoever is among the most
# active stays. Twice as many are kept as a report can list.
_TENANT_LIMIT = 200
_TENANTS_KEPT = 100
_NO_HITS: Mapping[HitKind, int] = MappingProxyType({})


@dataclass(slots=True)
class Traffic:
    """How much was looked for and found, per layer.

    Attributes:
        lookups: Items looked for.
        hits: Items found, by kind; negative ones are not counted.
    """

    lookups: Counter[Layer] = field(default_factory=Counter)
    hits: Counter[tuple[Layer, HitKind]] = field(default_factory=Counter)

    def add(self, layer: Layer, lookup_count: int, hits: Mapping[HitKind, int] = _NO_HITS) -> None:
        """Counts lookups.

        Args:
            layer: Layer asked.
            lookup_count: Items looked for.
            hits: Items found, or found after they had been counted as missing, by kind.
        """
        self.lookups[layer] += lookup_count
        for kind, count in hits.items():
            self.hits[layer, kind] += count

    def hits_of(self, layer: Layer) -> dict[HitKind, int]:
        """Returns the hits of a layer by kind, kinds without any left out."""
        return {kind: count for kind in HitKind if (count := self.hits[layer, kind])}


@dataclass(slots=True)
class TenantTally:
    """What is counted of a tenant.

    Attributes:
        traffic: Its lookups.
        saved: What hits have saved it.
    """

    traffic: Traffic = field(default_factory=Traffic)
    saved: Savings = NOTHING

    def take_over(self, other: "TenantTally") -> None:
        """Adds the counts of another one."""
        for layer, lookup_count in other.traffic.lookups.items():
            self.traffic.add(layer, lookup_count, other.traffic.hits_of(layer))
        self.saved += other.saved


class TenantTraffic:
    """Counts by tenant. Of too many the least active are counted together from then on."""

    def __init__(self) -> None:
        self._tallies: dict[str, TenantTally] = {}
        self._others = TenantTally()

    def of(self, tenant_id: str) -> TenantTally:
        """Returns the counts of a tenant, to be added to."""
        tally = self._tallies.get(tenant_id)
        if tally is None:
            if len(self._tallies) >= _TENANT_LIMIT:
                self._fold()
            tally = self._tallies[tenant_id] = TenantTally()
        return tally

    def top(self, limit: int) -> list[tuple[str, TenantTally]]:
        """Returns those with the most lookups, the most active first, then all the others as "".

        Args:
            limit: How many to tell apart; 0 for an empty list.
        """
        if limit == 0:
            return []
        first = self._most_active(limit)
        shown = {tenant_id for tenant_id, _ in first}
        rest = TenantTally()
        rest.take_over(self._others)
        for tenant_id, tally in self._tallies.items():
            if tenant_id not in shown:
                rest.take_over(tally)
        return [*first, ("", rest)] if rest.traffic.lookups.total() else first

    def _fold(self) -> None:
        kept = dict(self._most_active(_TENANTS_KEPT))
        self._others.take_over(_sum(t for name, t in self._tallies.items() if name not in kept))
        self._tallies = kept

    def _most_active(self, limit: int) -> list[tuple[str, TenantTally]]:
        return nlargest(
            limit, self._tallies.items(), key=lambda each: each[1].traffic.lookups.total()
        )


def _sum(tallies: Iterable[TenantTally]) -> TenantTally:
    total = TenantTally()
    for each in tallies:
        total.take_over(each)
    return total
