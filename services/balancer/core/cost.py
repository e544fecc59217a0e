"""What a request would cost on a backend, and who would have to make room for it there."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from services.balancer.core.demand import Demand
from services.balancer.core.interest import Interest
from services.balancer.core.snapshot import BackendView, ModelView, Residency, Snapshot
from services.balancer.core.terms import Exclusion, Terms

__all__ = ["Bench", "Candidate", "Exclusion", "Lane", "Terms"]

_HIGHEST_FAILURE_RATIO = 0.95
_OVERDUE_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backend that a request could go to.

    Attributes:
        lane: The model there.
        terms: What it costs.
        hit_token_count: Tokens of the prompt that it is thought to remember.
        evicted: Keys of the models that have to go for it.
        needs_load: Whether the model has to be loaded first.
        in_turn: Whether those that have to go have had their turn.
    """

    lane: "Lane"
    terms: Terms
    hit_token_count: int = 0
    evicted: tuple[str, ...] = ()
    needs_load: bool = False
    in_turn: bool = True


@dataclass(frozen=True, slots=True)
class _Entry:
    """What stands before the first request to a model that is not in memory.

    Attributes:
        wait: Seconds until the load can begin.
        load: Seconds that it takes, unloading included.
        missed: What unloading is thought to cost others, in seconds.
        evicted: Who has to go.
        leaving_count: Requests that will have ended by then.
        turn_began_at: When those who have to go came into memory, monotonic seconds.
        turn_seconds: How long they may stay from then on, or from when somebody else wants their
            place; 0 where they go at once.
        contested: Whether somebody waits for them, so that they will stay as long as they may.
    """

    wait: float
    load: float
    missed: float
    evicted: tuple[str, ...]
    leaving_count: int
    turn_began_at: float
    turn_seconds: float
    contested: bool


class Lane:
    """The slots of one model on one backend, with what the plan has put there so far.

    Args:
        bench: The backend.
        key: Key of the model, the first where it has several names.
        model: The model there.

    Attributes:
        keys: Keys of all its names.
        free_at: When a slot is free, monotonic seconds.
        occupied_count: Slots that are taken, or spoken for.
        yielding: Whether the model keeps its slots empty, to be unloaded or loaded anew.
    """

    __slots__ = (
        "_ends",
        "bench",
        "free_at",
        "key",
        "keys",
        "model",
        "occupied_count",
        "ready_at",
        "residency",
        "yielding",
    )

    def __init__(self, bench: "Bench", key: str, model: ModelView) -> None:
        self.bench = bench
        self.key = key
        self.keys = [key]
        self.model = model
        self.residency = model.residency
        self.ready_at = model.ready_at
        self.yielding = False
        now = bench.now
        if model.busy_until:
            busy = sorted(model.busy_until)[-model.slot_count :]
            # An occupied slot whose end is overdue is not free, whatever was predicted of it.
            overdue = now + _OVERDUE_SECONDS
            self._ends = [now] * (model.slot_count - len(busy)) + [
                max(end, overdue) for end in busy
            ]
            self.occupied_count = len(busy)
        else:
            self._ends = [now] * model.slot_count
            self.occupied_count = 0
        self.free_at = self._ends[0]

    @property
    def idle_at(self) -> float:
        """When all its requests have ended, and a load under way has, monotonic seconds."""
        return max(*self._ends, self.ready_at if self.residency is Residency.LOADING else 0.0)

    @property
    def free(self) -> bool:
        """Whether a request could start now."""
        return (
            self.residency is Residency.WARM
            and not self.yielding
            and self.free_at <= self.bench.now
        )

    def occupy(self, start_seconds: float, service_seconds: float) -> None:
        """Gives the slot that is free first to a request.

        Args:
            start_seconds: When it starts, from now.
            service_seconds: How long it holds the slot.
        """
        end = self.bench.now + start_seconds + max(service_seconds, _OVERDUE_SECONDS)
        self._ends[0] = end
        self._ends.sort()
        self.free_at = self._ends[0]
        if self.occupied_count < self.model.slot_count:
            self.occupied_count += 1
            self.bench.occupied_count += 1
        self.bench.changed()

    def begin_load(self, ready_at: float) -> None:
        """Notes that the plan loads the model."""
        self.residency = Residency.LOADING
        self.ready_at = ready_at
        self.model = replace(self.model, context_token_count=0)
        self._ends = [ready_at] * self.model.slot_count
        self.free_at = ready_at
        self.bench.occupied_count -= self.occupied_count
        self.occupied_count = 0


class Bench:
    """One backend, with what the plan has put there so far.

    Args:
        view: The backend.
        snapshot: The fleet.
        interest: Which models are wanted.

    Attributes:
        occupied_count: Slots of all models that are taken, or spoken for.
        loading_key: The model that it loads, or that the plan means it to load.
    """

    __slots__ = (
        "_by_view",
        "_entries",
        "_entries_version",
        "_interest",
        "_lanes",
        "_models",
        "_policy",
        "_risk_ratio",
        "loading_key",
        "loading_until",
        "now",
        "occupied_count",
        "view",
    )

    def __init__(self, view: BackendView, snapshot: Snapshot, interest: Interest) -> None:
        self.view = view
        self.now = snapshot.now
        self._policy = snapshot.policy
        self.loading_key = view.loading_key
        self.loading_until = view.loading_until
        failing = min(view.failure_ratio, _HIGHEST_FAILURE_RATIO)
        self._risk_ratio = failing / (1.0 - failing)
        self._interest = interest
        self._entries: dict[str, _Entry | None] = {}
        self._entries_version = 0
        self._lanes: dict[str, Lane] = {}
        self._by_view: dict[int, Lane] = {}
        self._models = view.models or {}
        # Others are here when they are asked for, or when somebody has to make room.
        for key, model in self._models.items():
            if model.busy_until:
                self.lane(key)
        self.occupied_count = sum(lane.occupied_count for lane in self._by_view.values())

    def lane(self, key: str) -> Lane | None:
        """Returns the slots of a model; None where the backend lacks it."""
        if key not in self._lanes and key in self._models:
            model, keys = self._models[key], [key]
            if model.residency is not Residency.INSTALLED or model.busy_until:
                # Whatever name is asked for first, the first of all stands for it.
                keys = [name for name, each in self._models.items() if each is model]
            for name in keys:
                self._add(name, model)
        return self._lanes.get(key)

    def _add(self, key: str, model: ModelView) -> None:
        """Names of the same weights share what is loaded, and its slots."""
        lane = self._by_view.get(id(model))
        if lane is None:
            lane = self._by_view[id(model)] = Lane(self, key, model)
        else:
            lane.keys.append(key)
        self._lanes[key] = lane

    def _add_all_in_memory(self) -> None:
        for key, model in self._models.items():
            if model.residency is not Residency.INSTALLED:
                self.lane(key)

    def leave_idle(self, yielding: frozenset[tuple[str, str]]) -> None:
        """Notes which models are to be given nothing, as pairs of backend id and model key."""
        self._add_all_in_memory()
        for lane in self._by_view.values():
            if (self.view.id, lane.key) in yielding:
                lane.yielding = True

    def must_load(self, demand: Demand, lane: Lane) -> bool:
        """Tells whether a load would have to begin for a request."""
        if lane.residency is Residency.LOADING:
            return False
        return (
            lane.residency is not Residency.WARM
            or lane.yielding
            or not lane.model.holds(demand.context_token_count)
        )

    def candidate(self, demand: Demand, lane: Lane) -> Candidate | str:
        """Says what a request would cost here, or why it cannot come here."""
        if self.must_load(demand, lane):
            return self.candidate_to_load(demand, lane)
        return self.candidate_as_is(demand, lane)

    def candidate_as_is(self, demand: Demand, lane: Lane) -> Candidate:
        """Says what a request would cost where no load would have to begin for it."""
        if lane.residency is Residency.LOADING:
            load = max(0.0, lane.ready_at - self.now)
            wait = max(0.0, lane.free_at - self.now - load)
            return Candidate(lane, self._terms(demand, lane, wait, load))
        hit = min(demand.prefix_hits.get(self.view.id, 0), demand.prompt_token_count)
        wait = lane.free_at - self.now
        return Candidate(lane, self._terms(demand, lane, wait, 0.0, hit=hit), hit)

    def candidate_to_load(self, demand: Demand, lane: Lane) -> Candidate | str:
        """Says what a request would cost where a load would have to begin, or why it cannot."""
        entry = self._entry(lane)
        if entry is None:
            return Exclusion.NO_ROOM
        turn_left = 0.0
        if entry.turn_seconds:
            turn_began_at = max(entry.turn_began_at, demand.arrived_at)
            turn_left = turn_began_at + entry.turn_seconds - self.now
        terms = self._terms(
            demand,
            lane,
            max(entry.wait, turn_left) if entry.contested else entry.wait,
            entry.load,
            missed=entry.missed,
            active_count=self.occupied_count - entry.leaving_count + 1,
        )
        return Candidate(lane, terms, 0, entry.evicted, needs_load=True, in_turn=turn_left <= 0)

    def changed(self) -> None:
        """Notes that what was found out about loads no longer holds."""
        self._entries.clear()

    def _entry(self, lane: Lane) -> _Entry | None:
        """A load, after what is loading now and after those that have to make room."""
        if self._entries_version != self._interest.version:
            self._entries.clear()
            self._entries_version = self._interest.version
        if lane.key not in self._entries:
            self._entries[lane.key] = self._find_entry(lane)
        return self._entries[lane.key]

    def _find_entry(self, lane: Lane) -> _Entry | None:
        evicted = self._evicted(lane)
        if evicted is None or lane.model.load_barred_until > self.now:
            return None
        begin = max(each.idle_at for each in (lane, *evicted))
        if self.loading_key is not None:
            begin = max(begin, self.loading_until)
        unload = self._policy.unload_seconds if evicted else 0.0
        others = [each for each in evicted if each is not lane]
        needed = [each for each in others if self._is_needed(each)]
        return _Entry(
            wait=max(0.0, begin - self.now),
            load=lane.model.load_seconds + unload,
            missed=sum(self._missed(each) for each in others),
            evicted=tuple(each.key for each in evicted),
            leaving_count=sum(each.occupied_count for each in evicted),
            turn_began_at=max((each.model.loaded_at for each in needed), default=0.0),
            turn_seconds=sum(self._turn_seconds(each, lane) for each in needed),
            contested=any(self._is_wanted(each) for each in needed),
        )

    def _is_needed(self, lane: Lane) -> bool:
        """Tells whether a model is in use or wanted, and has no other copy."""
        used = lane.occupied_count > 0 or self._is_wanted(lane)
        return used and self._interest.is_only_copy(lane.key)

    def _is_wanted(self, lane: Lane) -> bool:
        return any(self._interest.is_wanted(key) for key in lane.keys)

    def _turn_seconds(self, needed: Lane, lane: Lane) -> float:
        """Without turns, two models with one place would be loaded anew for every request."""
        there = self._policy.unload_seconds + lane.model.load_seconds
        back = self._policy.unload_seconds + needed.model.load_seconds
        return self._policy.turn_ratio * (there + back)

    def _evicted(self, lane: Lane) -> tuple[Lane, ...] | None:
        """Chooses who makes room; None where nobody may."""
        self._add_all_in_memory()
        evicted = [lane] if lane.residency is not Residency.INSTALLED else []
        staying = [
            each
            for each in self._by_view.values()
            if each is not lane
            and (
                each.residency is Residency.LOADING
                or (each.residency is Residency.WARM and not each.yielding)
            )
        ]
        if self._fits(lane, staying):
            return tuple(evicted)
        # Nobody goes who is being loaded; of the others, first those who are not needed, then
        # whoever costs the fewest seconds.
        may_go = [
            each for each in staying if each.residency is Residency.WARM and not each.model.pinned
        ]
        may_go.sort(
            key=lambda each: (
                self._is_needed(each),
                each.idle_at + self._missed(each),
                each.key,
            )
        )
        for each in may_go:
            evicted.append(each)
            staying.remove(each)
            if self._fits(lane, staying):
                return tuple(evicted)
        return None

    def _fits(self, lane: Lane, staying: Iterable[Lane]) -> bool:
        sizes = (lane.model.size_bytes, *(each.model.size_bytes for each in staying))
        return self.view.room.fits(sizes)

    def _missed(self, lane: Lane) -> float:
        """What unloading a model is thought to cost those who want it next."""
        idle_seconds = max(0.0, self.now - lane.model.used_at)
        remembered = math.exp(-idle_seconds / self._policy.eviction_memory_seconds)
        return lane.model.load_seconds * remembered

    def may_load(self, candidate: Candidate) -> bool:
        """Tells whether a load can begin now: the loader is free and nobody evicted is busy."""
        return (
            self.loading_key is None
            and candidate.in_turn
            and candidate.lane.occupied_count == 0
            and all(self._lanes[key].occupied_count == 0 for key in candidate.evicted)
        )

    def begin_load(self, candidate: Candidate) -> None:
        """Notes that the plan loads a model here, now or when it can."""
        # Until their turn is over, and while another model is being loaded, those that will have to
        # make room go on working.
        if self.loading_key is None and candidate.in_turn:
            for key in candidate.evicted:
                self._lanes[key].yielding = True
            self._interest.note_load(candidate.lane.key, candidate.evicted)
        ready_at = self.now + candidate.terms.drain + candidate.terms.load
        candidate.lane.begin_load(ready_at)
        self.loading_key = candidate.lane.key
        self.loading_until = ready_at
        self.changed()

    def _terms(
        self,
        demand: Demand,
        lane: Lane,
        drain: float,
        load: float,
        *,
        hit: int = 0,
        missed: float = 0.0,
        active_count: int | None = None,
    ) -> Terms:
        model = lane.model
        prefill = (demand.prompt_token_count - hit) / model.prefill_rate + model.overhead_seconds
        decode = 0.0
        if demand.output_token_count:
            if active_count is None:
                # The slot that it waits for will be free, so whoever holds it does not count.
                active_count = self.occupied_count + (drain == 0)
            decode = demand.output_token_count / model.decode_rate(active_count)
        risk = self.view.surcharge_seconds + missed
        if self._risk_ratio:
            risk += self._risk_ratio * (self._policy.retry_seconds + drain + load + prefill)
        return Terms(drain, load, prefill, decode, demand.decode_weight, risk)
