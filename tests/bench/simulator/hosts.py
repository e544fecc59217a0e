"""Simulated Ollama hosts: slots, loads and evictions, as Ollama 0.30 handles them.

Requests of several models on one host slow each other down; a host loads one model at a time.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from tests.bench.balancer.reference import Host, ModelProfile
from tests.bench.balancer.traces import Request

__all__ = ["Happening", "Job", "SimulatedHost"]

INTERFERENCE_FACTOR = 0.6
"""Speed of each request where several are active on a host, as a share of its speed alone."""

UNLOAD_SECONDS = 1.0
_DONE = 1e-9


class Happening(Enum):
    """What can become of a host's work."""

    FIRST_TOKEN = auto()
    ENDED = auto()
    LOADED = auto()


@dataclass(slots=True, eq=False)
class Job:
    """A request on its way; the work left is in seconds of a host of speed 1."""

    request: Request
    prefill_left: float
    decode_left: float
    host: "SimulatedHost | None" = None
    dispatched_at: float = math.nan
    began_at: float = math.nan
    first_token_at: float = math.nan
    ended_at: float = math.nan
    refused: bool = False
    active_count: int = 1

    @property
    def left(self) -> float:
        """Work left until the first token, or after it until the end."""
        return self.prefill_left if math.isnan(self.first_token_at) else self.decode_left

    def work(self, done: float) -> None:
        """Has so much work done."""
        if math.isnan(self.first_token_at):
            self.prefill_left -= done
        else:
            self.decode_left -= done


@dataclass(slots=True)
class Runner:
    """A model in memory: what it works on, and what waits for it without bound."""

    active: list[Job] = field(default_factory=list)
    queue: deque[Job] = field(default_factory=deque)

    @property
    def idle(self) -> bool:
        return not self.active and not self.queue


class SimulatedHost:
    """One host.

    Args:
        index: Its number.
        host: Speed and room.
        models: All models by name; every host has them on disk.
        loaded: Names of those in memory from the start.
        slot_count: Requests that a model works on at a time.
    """

    def __init__(
        self,
        index: int,
        host: Host,
        models: dict[str, ModelProfile],
        loaded: Iterable[str] = (),
        slot_count: int = 1,
    ) -> None:
        self.id = f"h{index}:11434"
        self.speed = host.speed
        self.room_count = host.model_room_count
        self.models = models
        self.slot_count = slot_count
        self.runners = {name: Runner() for name in loaded}
        self.pending: deque[Job] = deque()
        self.loading: str | None = None
        self.loaded_at = math.inf
        self.load_count = 0
        self.version = 0
        self._ordered: str | None = None
        self._unloading = False
        self._now = 0.0

    @property
    def active(self) -> list[Job]:
        """All requests that are being worked on."""
        return [job for runner in self.runners.values() for job in runner.active]

    @property
    def in_flight_count(self) -> int:
        """All requests that it has been sent and has not ended."""
        waiting = sum(len(runner.queue) for runner in self.runners.values())
        return len(self.active) + waiting + len(self.pending)

    def rate(self, active_count: int) -> float:
        """Returns the speed of each request among so many active ones."""
        return self.speed * (INTERFERENCE_FACTOR if active_count > 1 else 1.0)

    def load_seconds(self, name: str) -> float:
        """Returns what loading a model takes here, without unloading others."""
        return self.models[name].load_seconds / math.sqrt(self.speed)

    def submit(self, job: Job, now: float) -> None:
        """Takes a request, whether or not its model is in memory."""
        self._elapse(now)
        job.host, job.dispatched_at = self, now
        self.pending.append(job)
        self._schedule(now)

    def load(self, name: str, evicted: Sequence[str], now: float) -> None:
        """Loads a model for the planner, after unloading others, which must be idle."""
        self._elapse(now)
        for each in evicted:
            if not self.runners.pop(each).idle:
                raise AssertionError(f"{each} was evicted from {self.id} while it was busy")
        self._ordered, self._unloading = name, bool(evicted)
        self._schedule(now)

    def next_at(self) -> float:
        """Returns when something next happens here by itself."""
        active = self.active
        left = min((job.left for job in active), default=math.inf)
        return min(self.loaded_at, self._now + max(0.0, left) / self.rate(len(active)))

    def advance(self, now: float) -> list[tuple[Happening, Job | str]]:
        """Works until `now`, no later than `next_at`, and says what has happened then."""
        self._elapse(now)
        happened: list[tuple[Happening, Job | str]] = []
        for job in self.active:
            if job.left > _DONE:
                continue
            if math.isnan(job.first_token_at):
                job.first_token_at = now
                happened.append((Happening.FIRST_TOKEN, job))
            if job.left <= _DONE:
                job.ended_at = now
                self.runners[job.request.model].active.remove(job)
                happened.append((Happening.ENDED, job))
        if self.loading is not None and now >= self.loaded_at:
            name, self.loading, self.loaded_at = self.loading, None, math.inf
            self.runners[name] = Runner()
            happened.append((Happening.LOADED, name))
        if happened:
            self._schedule(now)
        return happened

    def _elapse(self, now: float) -> None:
        active = self.active
        done = (now - self._now) * self.rate(len(active))
        self._now = now
        for job in active:
            job.work(done)

    def _schedule(self, now: float) -> None:
        """Starts what can start: requests for loaded models at once, loads one after the other."""
        self.version += 1
        waiting, self.pending = self.pending, deque()
        for job in waiting:
            runner = self.runners.get(job.request.model)
            (self.pending if runner is None else runner.queue).append(job)
        wanted = self._ordered or (self.pending[0].request.model if self.pending else None)
        if self.loading is None and wanted is not None:
            self._make_room(wanted, now)
        begun = []
        for runner in self.runners.values():
            while runner.queue and len(runner.active) < self.slot_count:
                begun.append(runner.queue.popleft())
                runner.active.append(begun[-1])
        for job in begun:
            job.began_at, job.active_count = now, len(self.active)

    def _make_room(self, name: str, now: float) -> None:
        while len(self.runners) >= self.room_count:
            # The victim is chosen by name among the idle; a busy one is waited for.
            idle = sorted(each for each, runner in self.runners.items() if runner.idle)
            if not idle:
                return
            del self.runners[idle[0]]
            self._unloading = True
        delay = UNLOAD_SECONDS if self._unloading else 0.0
        self._ordered, self._unloading = None, False
        self.loading = name
        self.loaded_at = now + delay + self.load_seconds(name)
        self.load_count += 1
