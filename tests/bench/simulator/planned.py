"""The service's planner, fed as the service feeds it: with what was learned, not with truth."""

import itertools
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from services.balancer.core.admission import Admitted, QueueLimit, QueueLimits, admit, to_shed
from services.balancer.core.demand import Demand, Kind, Priority
from services.balancer.core.estimates import Estimates
from services.balancer.core.fairness import FairShares, service_order
from services.balancer.core.headroom import Headroom
from services.balancer.core.lengths import OutputLengths
from services.balancer.core.models import Capability
from services.balancer.core.plan import Outcome, Placement, Plan, plan
from services.balancer.core.snapshot import (
    BackendView,
    ModelView,
    Policy,
    Residency,
    Room,
    Snapshot,
)
from tests.bench.simulator.hosts import Happening, Job, SimulatedHost

__all__ = ["Planned"]

_SHORT_QUEUE = 16
_LEARNED_CONCURRENCY = 4
_NOT_LEARNED_SECONDS = 10.0


@dataclass(slots=True)
class _Learned:
    """What the planner is shown of a model on a host besides its state."""

    prefill_rate: float
    decode_rates: tuple[float, ...]
    load_seconds: float
    overhead_seconds: float
    good_until: float


@dataclass(slots=True)
class _Ledger:
    """What the balancer itself knows of a host."""

    room: Room
    busy_until: dict[Job, float] = field(default_factory=dict)
    used_at: dict[str, float] = field(default_factory=dict)
    loaded_at: dict[str, float] = field(default_factory=dict)
    learned: dict[str, _Learned] = field(default_factory=dict)
    loading_key: str | None = None
    loading_began_at: float = 0.0
    loading_until: float = 0.0
    evicted: tuple[str, ...] = ()
    turn: int = 0


class Planned:
    """Plans at each event, as the scheduler of the service does.

    Args:
        hosts: All hosts.
        rng: For ties.
        policy: The planner's constants.
        model_limit: How many models the planner believes each host to hold; None for the truth.
    """

    def __init__(
        self,
        hosts: Sequence[SimulatedHost],
        rng: random.Random,
        policy: Policy | None = None,
        model_limit: int | None = None,
    ) -> None:
        self._hosts = {host.id: host for host in hosts}
        self._rng = rng
        self._policy = policy or Policy()
        self._ledgers = {
            host.id: _Ledger(room=Room(model_limit=model_limit or host.room_count))
            for host in hosts
        }
        self._estimates = Estimates()
        self._lengths = OutputLengths()
        self._shares = FairShares()
        self._limits = QueueLimits()
        self._headroom = Headroom()
        self._demands: dict[int, Demand] = {}
        self._waiting: dict[int, tuple[Demand, Job]] = {}
        self._turns = itertools.count(1)
        self._yielding: frozenset[tuple[str, str]] = frozenset()
        self._interactive_at: dict[str, float] = {}
        self._capabilities = {
            name: frozenset({Capability(profile.capability)})
            for host in hosts
            for name, profile in host.models.items()
        }

    @property
    def waiting_count(self) -> int:
        return len(self._waiting)

    def arrive(self, job: Job, now: float) -> Sequence[Job]:
        demand = self._demand(job, now)
        refused = self._make_way(demand, job, now)
        if job not in refused:
            self._waiting[demand.id] = (demand, job)
            self._demands[demand.id] = demand
            self._interactive_at[demand.model_key] = now
            self._plan(now, quick=len(self._waiting) > _SHORT_QUEUE)
        return refused

    def _make_way(self, demand: Demand, job: Job, now: float) -> Sequence[Job]:
        """Returns who is refused: nobody where there is room, else the request or one for it."""
        waiting = [each for each, _ in self._waiting.values()]
        counts = Counter(each.tenant for each in waiting)
        if demand.tenant not in counts:
            self._shares.activate(demand.tenant, counts, now)
        by_class = {Priority.INTERACTIVE: len(waiting)}
        verdict = admit(by_class, counts[demand.tenant], demand, self._limits)
        if isinstance(verdict, Admitted):
            return ()
        shed = None
        if verdict.limit is QueueLimit.CLASS:
            shed = to_shed(waiting, self._limits, demand)
        refused = job if shed is None else self._waiting.pop(shed.id)[1]
        refused.refused = True
        return (refused,)

    def notice(self, host: SimulatedHost, what: Happening, job: Job | str, now: float) -> None:
        ledger = self._ledgers[host.id]
        if isinstance(job, str):
            self._note_loaded(host, ledger, job, now)
        elif what is Happening.ENDED:
            del ledger.busy_until[job]
            self._learn(host, ledger, job, now)
        else:
            return
        self._plan(now, quick=len(self._waiting) > _SHORT_QUEUE)

    def tick(self, now: float) -> None:
        for host in self._hosts.values():
            self._predict_ends(host, now)
        self._plan(now, quick=False)

    # Planning.

    def _plan(self, now: float, *, quick: bool) -> None:
        if not self._waiting:
            return
        snapshot = self._snapshot(now)
        queue = service_order(
            [demand for demand, _ in self._waiting.values()],
            self._shares,
            now,
            limit=self._policy.walk_limit,
        )
        running = [
            self._demands[job.request.index]
            for ledger in self._ledgers.values()
            for job in ledger.busy_until
        ]
        self._headroom.observe([*(each for each, _ in self._waiting.values()), *running], now)
        if self._headroom.contested:
            queue = self._headroom.leave(queue, running, self._slot_counts())
        ties = {name: self._rng.random() for name in self._hosts}
        made = plan(snapshot, queue, ties, quick=quick)
        if not quick:
            self._yielding = made.yielding
        for placement in made.placements:
            if placement.outcome is Outcome.DISPATCHED:
                self._dispatch(placement, now)
        self._order_loads(made, now)

    def _slot_counts(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for host in self._hosts.values():
            for name in host.runners:
                counts[name] += host.slot_count
        return counts

    def _dispatch(self, placement: Placement, now: float) -> None:
        demand, job = self._waiting.pop(placement.demand.id)
        host = self._hosts[placement.backend_id or ""]
        if placement.terms is None:
            raise AssertionError("no host of the simulation ever fails")
        ledger = self._ledgers[host.id]
        ledger.turn = next(self._turns)
        ledger.busy_until[job] = now + placement.terms.prefill + placement.terms.decode
        ledger.used_at[demand.model_key] = now
        self._shares.serve(demand, now)
        runner = host.runners.get(demand.model_key)
        if runner is None or len(runner.active) >= host.slot_count:
            raise AssertionError(f"{host.id} was given more than it has slots for")
        host.submit(job, now)

    def _order_loads(self, made: Plan, now: float) -> None:
        for order in made.loads:
            ledger = self._ledgers[order.backend_id]
            ledger.loading_key = order.model_key
            ledger.loading_began_at = now
            ledger.loading_until = now + order.predicted_seconds
            ledger.evicted = order.evicted_keys
            self._hosts[order.backend_id].load(order.model_key, order.evicted_keys, now)

    def _demand(self, job: Job, now: float) -> Demand:
        request = job.request
        embeds = request.kind == "embed"
        kind = Kind.EMBED if embeds else Kind.CHAT
        output = 0.0
        if not embeds:
            output = self._lengths.median(request.model, kind, request.tenant, cap=None, now=now)
        return Demand(
            id=request.index,
            model_key=request.model,
            kind=kind,
            tenant=request.tenant,
            priority=Priority.INTERACTIVE,
            arrived_at=now,
            prompt_token_count=request.prompt_tokens,
            output_token_count=output,
        )

    # What the planner is shown.

    def _snapshot(self, now: float) -> Snapshot:
        return Snapshot(
            now=now,
            backends=tuple(self._view(host, now) for host in self._hosts.values()),
            policy=self._policy,
            interactive_at=self._interactive_at,
            yielding=self._yielding,
        )

    def _view(self, host: SimulatedHost, now: float) -> BackendView:
        ledger = self._ledgers[host.id]
        if ledger.loading_key is not None and ledger.loading_until < now:
            # What takes longer than predicted will take a while longer still.
            ledger.loading_until = now + 0.25 * (now - ledger.loading_began_at)
        return BackendView(
            id=host.id,
            models={name: self._model_view(host, ledger, name, now) for name in host.models},
            loading_key=ledger.loading_key,
            loading_until=ledger.loading_until,
            room=ledger.room,
            chosen_turn=ledger.turn,
        )

    def _model_view(self, host: SimulatedHost, ledger: _Ledger, name: str, now: float) -> ModelView:
        residency = Residency.WARM if name in host.runners else Residency.INSTALLED
        if ledger.loading_key == name:
            residency = Residency.LOADING
        learned = ledger.learned.get(name)
        if learned is None or learned.good_until < now:
            learned = ledger.learned[name] = self._look_up(host, name, now)
        return ModelView(
            digest=name,
            capabilities=self._capabilities[name],
            residency=residency,
            slot_count=host.slot_count,
            busy_until=tuple(
                end for job, end in ledger.busy_until.items() if job.request.model == name
            ),
            ready_at=ledger.loading_until if residency is Residency.LOADING else 0.0,
            size_bytes=host.models[name].size_bytes,
            used_at=ledger.used_at.get(name, -math.inf),
            loaded_at=ledger.loaded_at.get(name, -math.inf),
            load_seconds=learned.load_seconds,
            prefill_rate=learned.prefill_rate,
            decode_rates=learned.decode_rates,
            overhead_seconds=learned.overhead_seconds,
        )

    def _look_up(self, host: SimulatedHost, name: str, now: float) -> _Learned:
        estimates, size_bytes = self._estimates, host.models[name].size_bytes
        return _Learned(
            prefill_rate=estimates.prefill_rate(host.id, name, now),
            decode_rates=tuple(
                estimates.decode_rate(host.id, name, count, now)
                for count in range(1, _LEARNED_CONCURRENCY + 1)
            ),
            load_seconds=estimates.load_seconds(host.id, name, size_bytes, now),
            overhead_seconds=estimates.text_overhead_seconds(host.id, name, now),
            good_until=now + _NOT_LEARNED_SECONDS,
        )

    def _predict_ends(self, host: SimulatedHost, now: float) -> None:
        busy_until = self._ledgers[host.id].busy_until
        for job in busy_until:
            if math.isnan(job.first_token_at):
                continue
            request = job.request
            rate = host.models[request.model].decode_tokens_per_second
            left = self._lengths.remaining(
                request.model,
                Kind.CHAT,
                request.tenant,
                produced=round(request.output_tokens - job.decode_left * rate),
                cap=None,
                now=now,
            )
            busy_until[job] = now + left / self._estimates.decode_rate(
                host.id, request.model, job.active_count, now
            )

    # What is learned.

    def _note_loaded(self, host: SimulatedHost, ledger: _Ledger, name: str, now: float) -> None:
        seconds = now - ledger.loading_began_at
        if not ledger.evicted:
            size_bytes = host.models[name].size_bytes
            self._estimates.note_load(
                host.id, name, seconds=seconds, size_bytes=size_bytes, now=now
            )
        ledger.loading_key = None
        ledger.loaded_at[name] = now
        if len(host.runners) < ledger.room.model_limit and len(host.runners) == host.room_count:
            # A look at what is in memory shows that somebody had to go.
            ledger.room = replace(ledger.room, model_limit=len(host.runners))

    def _learn(self, host: SimulatedHost, ledger: _Ledger, job: Job, now: float) -> None:
        request, model = job.request, job.request.model
        ledger.learned.pop(model, None)
        if request.kind == "embed":
            self._estimates.note_texts(
                host.id,
                model,
                token_count=request.prompt_tokens,
                text_count=1,
                seconds=now - job.began_at,
                now=now,
            )
            return
        self._estimates.note_generation(
            host.id,
            model,
            concurrency=job.active_count,
            prompt_token_count=request.prompt_tokens,
            expected_hit_token_count=0,
            prompt_seconds=job.first_token_at - job.began_at,
            output_token_count=request.output_tokens,
            output_seconds=now - job.first_token_at,
            now=now,
        )
        self._lengths.note(model, Kind.CHAT, request.tenant, request.output_tokens, now)
        self._shares.charge(request.tenant, output_token_count=request.output_tokens, now=now)
