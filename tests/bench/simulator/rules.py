"""How requests are placed: the simple rules that the planner is compared with."""

import random
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from tests.bench.simulator.hosts import Happening, Job, SimulatedHost

__all__ = ["CentralFifo", "LeastConnections", "RoundRobin", "Rule"]


class Rule(Protocol):
    """Decides where requests go, whenever something happens."""

    def arrive(self, job: Job, now: float) -> Sequence[Job]:
        """Takes a request; returns those that are refused for want of room in the queue."""

    def notice(self, host: SimulatedHost, what: Happening, job: Job | str, now: float) -> None:
        """Learns that something has happened."""

    def tick(self, now: float) -> None:
        """Has some time pass."""

    @property
    def waiting_count(self) -> int:
        """Requests that have been placed nowhere yet."""


class _Immediate:
    """Places each request when it comes."""

    waiting_count = 0

    def notice(self, host: SimulatedHost, what: Happening, job: Job | str, now: float) -> None:
        pass

    def tick(self, now: float) -> None:
        pass


class RoundRobin(_Immediate):
    """The next host, whatever it does."""

    def __init__(self, hosts: Sequence[SimulatedHost]) -> None:
        self._hosts = deque(hosts)

    def arrive(self, job: Job, now: float) -> Sequence[Job]:
        self._hosts[0].submit(job, now)
        self._hosts.rotate(-1)
        return ()


class LeastConnections(_Immediate):
    """The host with the fewest requests; by chance where several have."""

    def __init__(self, hosts: Sequence[SimulatedHost], rng: random.Random) -> None:
        self._hosts = hosts
        self._rng = rng

    def arrive(self, job: Job, now: float) -> Sequence[Job]:
        least = min(host.in_flight_count for host in self._hosts)
        least_busy = [host for host in self._hosts if host.in_flight_count == least]
        self._rng.choice(least_busy).submit(job, now)
        return ()


class CentralFifo:
    """One queue; its head goes to the first host with a free slot, whatever that has loaded."""

    def __init__(self, hosts: Sequence[SimulatedHost]) -> None:
        self._hosts = hosts
        self._queue: deque[Job] = deque()

    @property
    def waiting_count(self) -> int:
        return len(self._queue)

    def arrive(self, job: Job, now: float) -> Sequence[Job]:
        self._queue.append(job)
        self.tick(now)
        return ()

    def notice(self, host: SimulatedHost, what: Happening, job: Job | str, now: float) -> None:
        self.tick(now)

    def tick(self, now: float) -> None:
        for host in self._hosts:
            if not self._queue:
                return
            slot_count = host.slot_count * max(1, len(host.runners))
            while self._queue and host.in_flight_count < slot_count:
                host.submit(self._queue.popleft(), now)
