"""In which order requests are served: class, then fairness between tenants, then deadlines."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heapreplace, nlargest
from math import exp2, inf
from operator import itemgetter

from services.balancer.core.demand import Demand, Priority

__all__ = ["AGEING", "Ageing", "FairShares", "service_order"]

# A demand without a deadline, or with a remote one, goes before whatever of its tenant comes five
# minutes later; else a stream of urgent demands could keep it waiting for ever.
_PATIENCE_SECONDS = 300.0
# Counters that differ by less are the same; they are products of rounded factors.
_COUNTER_DIGITS = 3
_LEAST_COST = 1.0
_KEPT_RATIO = 0.9
_OVERDUE = -1

# Until when it should be served, arrival, id: the order inside a tenant.
_Entry = tuple[float, float, int, Demand]


@dataclass(slots=True)
class _Share:
    tokens: float = 0.0
    updated_at: float = 0.0
    served_at: list[float] = field(default_factory=lambda: [-inf] * len(Priority))


class FairShares:
    """What each tenant has had of late, in tokens.

    Virtual token counters (VTC, Sheng et al., OSDI'24): whoever has the least is served next, so
    that of two tenants that always wait neither gets ahead of the other by more than its largest
    request. Tokens and not seconds: nobody pays for having been put on a slow backend. Unlike in
    the paper counters fade, so that yesterday's flood is forgiven.

    Args:
        half_life_seconds: After how long half of a counter is forgotten.
        input_weight: What a token of a prompt counts.
        output_weight: What a generated token counts.
        maximum_tenant_count: Most tenants remembered; beyond it those with the least are
            forgotten, for whom that makes the least difference.
        pause_seconds: Who has not been served for this long has done nothing meanwhile.
    """

    def __init__(
        self,
        *,
        half_life_seconds: float = 60.0,
        input_weight: float = 1.0,
        output_weight: float = 2.0,
        maximum_tenant_count: int = 1000,
        pause_seconds: float = 10.0,
    ) -> None:
        self._half_life_seconds = half_life_seconds
        self._input_weight = input_weight
        self._output_weight = output_weight
        self._maximum_tenant_count = maximum_tenant_count
        self._pause_seconds = pause_seconds
        self._shares: dict[str, _Share] = {}

    def __len__(self) -> int:
        return len(self._shares)

    def charge(
        self,
        tenant: str,
        *,
        input_token_count: int = 0,
        output_token_count: int = 0,
        now: float,
    ) -> None:
        """Adds what a tenant was given.

        Args:
            tenant: Who.
            input_token_count: Tokens of prompts, at least 0.
            output_token_count: Generated tokens, at least 0; best told as they come.
            now: Seconds of the monotonic clock.
        """
        amount = self._input_weight * input_token_count + self._output_weight * output_token_count
        self._set(tenant, self.counter(tenant, now) + amount, now)

    def serve(self, demand: Demand, now: float) -> None:
        """Notes that a demand is sent to a backend: charges its prompt, and ends its tenant's wait.

        Args:
            demand: What is served.
            now: Seconds of the monotonic clock.
        """
        count = max(1, demand.prompt_token_count)
        self.charge(demand.tenant, input_token_count=count, now=now)
        self._shares[demand.tenant].served_at[demand.priority] = now

    def activate(self, tenant: str, active_tenants: Collection[str], now: float) -> None:
        """Lifts a tenant that asks for something to the least counter of those that do already.

        Without this it could save up for a monopoly by doing nothing. One that was served a moment
        ago has not done nothing: it asks for less than it might, and is owed what it is behind.

        Args:
            tenant: Who has become active.
            active_tenants: Who has requests waiting; itself is passed over.
            now: Seconds of the monotonic clock.
        """
        share = self._shares.get(tenant)
        if share is not None and now - max(share.served_at) < self._pause_seconds:
            return
        others = [self.counter(each, now) for each in active_tenants if each != tenant]
        if others and (least := min(others)) > self.counter(tenant, now):
            self._set(tenant, least, now)

    def counter(self, tenant: str, now: float) -> float:
        """Returns what a tenant has had, in weighted tokens, at least 0.

        Args:
            tenant: Who.
            now: Seconds of the monotonic clock.
        """
        share = self._shares.get(tenant)
        if share is None:
            return 0.0
        age_seconds = max(0.0, now - share.updated_at)
        return share.tokens * exp2(-age_seconds / self._half_life_seconds)

    def cost(self, demand: Demand) -> float:
        """Returns what a demand is expected to add to its tenant's counter, at least 1.

        Args:
            demand: What is to be served.
        """
        return max(
            _LEAST_COST,
            self._input_weight * demand.prompt_token_count
            + self._output_weight * demand.output_token_count,
        )

    def served_at(self, tenant: str, priority: Priority) -> float:
        """Returns when a tenant was last served in a class; minus infinity where it never was."""
        share = self._shares.get(tenant)
        return -inf if share is None else share.served_at[priority]

    def _set(self, tenant: str, tokens: float, now: float) -> None:
        share = self._shares.get(tenant)
        if share is None:
            self._make_room(now)
            share = self._shares[tenant] = _Share()
        share.tokens = tokens
        share.updated_at = now

    def _make_room(self, now: float) -> None:
        if len(self._shares) < self._maximum_tenant_count:
            return
        # A tenth at a time, so that a flood of names costs each of them next to nothing.
        count = int(self._maximum_tenant_count * _KEPT_RATIO)
        kept = nlargest(count, self._shares, key=lambda each: self.counter(each, now))
        self._shares = {tenant: self._shares[tenant] for tenant in kept}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ageing:
    """After how long without service the next demand of a tenant's class rises.

    One demand rises, not all that are old: the wait starts anew when the tenant is served in that
    class. Otherwise the backlog of a tenant that floods a class would outrank, by its mere age,
    what others ask for in the same class.

    Attributes:
        batch_seconds: From batch to interactive.
        interactive_seconds: From interactive to system.
        system_seconds: From system to before everything else, where the longest wait goes first.
            Only this bounds the wait where new tenants, of whom nobody has had anything yet, keep
            coming.
    """

    batch_seconds: float = 120.0
    interactive_seconds: float = 30.0
    system_seconds: float = 30.0

    def level(self, priority: Priority, waited_seconds: float) -> int:
        """Returns the class to be served with, -1 for before everything else.

        Args:
            priority: The class asked for.
            waited_seconds: How long the tenant has waited to be served in it.
        """
        limits = (self.system_seconds, self.interactive_seconds, self.batch_seconds)
        level = int(priority)
        while level > _OVERDUE and waited_seconds >= limits[level]:
            waited_seconds -= limits[level]
            level -= 1
        return level


AGEING = Ageing()


def service_order(
    waiting: Sequence[Demand],
    shares: FairShares,
    now: float,
    *,
    limit: int = 64,
    model_limit: int = 32,
    ageing: Ageing = AGEING,
) -> list[Demand]:
    """Says who is to be served next.

    The highest class goes first, with ageing; inside a class whichever tenant has had the least,
    where each demand placed counts for the places after it; inside a tenant the earliest deadline,
    then the earliest arrival. Between tenants that have had the same, whoever waits with fewer.

    Args:
        waiting: The queue, in any order.
        shares: What each tenant has had.
        now: Seconds of the monotonic clock.
        limit: Most demands returned.
        model_limit: Most of these for one model as long as others have demands for the rest: a
            queue for a model that is being loaded must not hide what could run at once.
        ageing: When demands rise.
    """
    available = Counter(each.model_key for each in waiting)
    room = {model_key: min(count, model_limit) for model_key, count in available.items()}
    chosen_count = min(limit, sum(room.values()))
    spare_count = min(limit, len(waiting)) - chosen_count
    chosen: list[tuple[int, Demand]] = []
    spare: list[tuple[int, Demand]] = []
    for place, demand in enumerate(_walk(waiting, shares, now, ageing)):
        if len(chosen) == chosen_count and len(spare) == spare_count:
            break
        if len(chosen) < chosen_count and room[demand.model_key] > 0:
            room[demand.model_key] -= 1
            chosen.append((place, demand))
        elif len(spare) < spare_count:
            spare.append((place, demand))
    return [demand for _, demand in sorted(chosen + spare, key=itemgetter(0))]


def _walk(
    waiting: Sequence[Demand], shares: FairShares, now: float, ageing: Ageing
) -> Iterator[Demand]:
    overdue: list[tuple[float, _Entry]] = []
    levels: list[dict[str, list[_Entry]]] = [{} for _ in Priority]
    for priority, queues in zip(Priority, _queues(waiting), strict=True):
        for tenant, queue in queues.items():
            since = max(min(each[1] for each in queue), shares.served_at(tenant, priority))
            level = ageing.level(priority, now - since)
            if level == _OVERDUE:
                overdue.append((since, heappop(queue)))
            elif level < priority:
                _join(levels[level], tenant, [heappop(queue)])
            _join(levels[priority], tenant, queue)
    counters = {each: shares.counter(each, now) for each in {each.tenant for each in waiting}}
    for _, (_, _, _, demand) in sorted(overdue):
        counters[demand.tenant] += shares.cost(demand)
        yield demand
    for level_queues in levels:
        yield from _take_turns(level_queues, counters, shares)


def _queues(waiting: Iterable[Demand]) -> list[dict[str, list[_Entry]]]:
    """Returns by class what waits of each tenant, as heaps."""
    classes: list[dict[str, list[_Entry]]] = [{} for _ in Priority]
    for demand in waiting:
        patience_ends_at = demand.arrived_at + _PATIENCE_SECONDS
        if demand.deadline is not None and demand.deadline < patience_ends_at:
            entry = (demand.deadline, demand.arrived_at, demand.id, demand)
        else:
            entry = (patience_ends_at, demand.arrived_at, demand.id, demand)
        classes[demand.priority].setdefault(demand.tenant, []).append(entry)
    for queues in classes:
        for queue in queues.values():
            heapify(queue)
    return classes


def _join(queues: dict[str, list[_Entry]], tenant: str, queue: list[_Entry]) -> None:
    if not queue:
        return
    if tenant in queues:
        queue += queues[tenant]
        heapify(queue)
    queues[tenant] = queue


def _take_turns(
    queues: dict[str, list[_Entry]], counters: dict[str, float], shares: FairShares
) -> Iterator[Demand]:
    """Yields the demands of a level; adds to the counters what they will cost."""
    # Ids are unique, so that no comparison gets as far as a demand or a tenant.
    turns = [_turn(queue, counters[tenant]) for tenant, queue in queues.items()]
    heapify(turns)
    while turns:
        demand = turns[0][2][3]
        queue = queues[demand.tenant]
        heappop(queue)
        counters[demand.tenant] += shares.cost(demand)
        if queue:
            heapreplace(turns, _turn(queue, counters[demand.tenant]))
        else:
            heappop(turns)
        yield demand


def _turn(queue: list[_Entry], counter: float) -> tuple[float, int, _Entry]:
    return (round(counter, _COUNTER_DIGITS), len(queue), queue[0])
