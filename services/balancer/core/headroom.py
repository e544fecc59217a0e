"""Room for requests that have not come yet, so that who asks for little need not wait for others.

Whoever floods a fleet holds all its slots, each for as long as an answer takes. A tenant that asks
for little is served next, but next is when an answer of somebody else has ended. So one slot of a
model is left empty for those that have less than their share of its slots and are used to ask for
it; nobody who has less than that is kept from a slot.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp2, sqrt

from services.balancer.core.demand import Demand, Kind, Priority

__all__ = ["Headroom"]

# Who has fewer requests in the system on average asks too seldom to be reckoned with.
_LEAST_MEAN = 0.05
# What room is kept for comes sooner or later, but it must be worth an empty slot.
_WORTHWHILE_MEAN = 0.25
# How many come at a time is spread as in a Poisson process: this is rarely exceeded.
_DEVIATIONS = 2.0
_EXPECTED_ID = -1

_Key = tuple[str, str]


@dataclass(slots=True)
class _Presence:
    """What a tenant is used to have waiting and in flight for a model.

    Attributes:
        demand: One of its requests.
        since: When the first of them was seen, monotonic seconds.
        count: How many there were when last looked at.
        faded: Their mean number, as if there had been none before `since`.
    """

    demand: Demand
    since: float
    count: int = 0
    faded: float = 0.0


class Headroom:
    """Learns what each tenant is used to have under way, and keeps room for one more.

    Args:
        half_life_seconds: After how long half of what was is forgotten.
    """

    def __init__(self, *, half_life_seconds: float = 60.0) -> None:
        self._half_life_seconds = half_life_seconds
        self._presences: dict[_Key, _Presence] = {}
        self._observed_at = 0.0

    @property
    def contested(self) -> bool:
        """Whether there are several tenants."""
        return len({tenant for tenant, _ in self._presences}) > 1

    def observe(self, present: Iterable[Demand], now: float) -> None:
        """Takes in who is there; to be told every second or oftener.

        Args:
            present: The requests that wait and those in flight.
            now: Seconds of the monotonic clock.
        """
        kept = exp2((self._observed_at - now) / self._half_life_seconds)
        self._observed_at = now
        for key, presence in list(self._presences.items()):
            presence.faded = presence.count + (presence.faded - presence.count) * kept
            known = now - presence.since > self._half_life_seconds
            if known and not presence.count and presence.faded < _LEAST_MEAN:
                del self._presences[key]
            presence.count = 0
        for each in present:
            if each.priority is Priority.BATCH or each.kind is Kind.EMBED:
                # The one may wait, the other does not take long.
                continue
            key = (each.tenant, each.model_key)
            presence = self._presences.setdefault(key, _Presence(each, now))
            presence.demand = each
            presence.count += 1

    def mean(self, tenant: str, model_key: str) -> float:
        """Returns how many requests a tenant has waiting and in flight on average."""
        presence = self._presences.get((tenant, model_key))
        if presence is None:
            return 0.0
        age_seconds = self._observed_at - presence.since
        known = 1.0 - exp2(-age_seconds / self._half_life_seconds)
        return presence.faded / known if known else float(presence.count)

    def leave(
        self, order: Sequence[Demand], running: Sequence[Demand], slot_counts: Mapping[str, int]
    ) -> list[Demand]:
        """Puts requests that have not come yet before those of tenants that have their share.

        Args:
            order: The queue, in order of service.
            running: The requests in flight.
            slot_counts: Slots where the models are in memory, by model.

        Returns:
            The queue with at most one request for each model that is `expected` only.
        """
        line = list(order)
        in_flight = Counter((each.tenant, each.model_key) for each in running)
        present = in_flight + Counter((each.tenant, each.model_key) for each in order)
        for model_key in dict.fromkeys(each.model_key for each in order):
            tenants = [tenant for tenant, model in self._presences if model == model_key]
            share = slot_counts.get(model_key, 0) // len(tenants) if len(tenants) > 1 else 0
            demand = self._expected(model_key, tenants, share, present)
            if demand is None:
                continue
            for place, each in enumerate(line):
                has_share = in_flight[each.tenant, model_key] >= share
                if each.model_key == model_key and has_share and each.priority >= demand.priority:
                    line.insert(place, demand)
                    break
        return line

    def _expected(
        self, model_key: str, tenants: Sequence[str], share: int, present: Counter[_Key]
    ) -> Demand | None:
        """Returns a request of whoever of those with less than their share asks most often."""
        means: dict[str, float] = {}
        for tenant in tenants:
            mean = self.mean(tenant, model_key)
            usual = round(mean + _DEVIATIONS * sqrt(mean))
            if present[tenant, model_key] < min(share, usual):
                means[tenant] = mean
        if sum(means.values()) < _WORTHWHILE_MEAN:
            return None
        tenant = max(means, key=lambda each: (means[each], each))
        demand = self._presences[tenant, model_key].demand
        return replace(demand, id=_EXPECTED_ID, tried=frozenset(), expected=True)
