"""The clock of the simulation: events in order, from the first arrival to the last answer."""

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tests.bench.balancer.reference import Host, ModelProfile
from tests.bench.balancer.traces import Request
from tests.bench.simulator.hosts import Happening, Job, SimulatedHost
from tests.bench.simulator.rules import Rule

__all__ = ["Result", "make_hosts", "simulate"]

TICK_SECONDS = 0.1
_NOBODY = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a trace.

    Attributes:
        jobs: Its requests, in order of arrival.
        load_count: Models loaded.
    """

    jobs: tuple[Job, ...]
    load_count: int

    def first_seconds(self, skip_seconds: float = 0.0) -> list[float]:
        """Times to the first token, or to the vectors, of requests after a warm-up."""
        return [
            job.first_token_at - job.request.at_seconds
            for job in self.jobs
            if job.request.at_seconds >= skip_seconds and not job.refused
        ]

    def total_seconds(self, skip_seconds: float = 0.0) -> list[float]:
        """Times to the end, likewise."""
        return [
            job.ended_at - job.request.at_seconds
            for job in self.jobs
            if job.request.at_seconds >= skip_seconds and not job.refused
        ]

    def of_tenant(self, tenant: str) -> "Result":
        """Returns what came of one tenant's requests."""
        kept = tuple(job for job in self.jobs if job.request.tenant == tenant)
        return replace(self, jobs=kept)


def make_hosts(
    hosts: Sequence[Host],
    models: Sequence[ModelProfile],
    *,
    cold: Sequence[ModelProfile] = (),
    slot_count: int = 1,
) -> list[SimulatedHost]:
    """Makes hosts that have loaded what fits.

    Args:
        hosts: Speeds and room.
        models: All models; the first is on every host that has room for one, the others on the
            hosts with more room in turn.
        cold: Models that no host has loaded.
        slot_count: Requests that a model works on at a time.
    """
    by_name = {model.name: model for model in models}
    warm = [model.name for model in models if model not in cold]
    others = itertools.cycle(warm[1:])
    made = []
    for index, host in enumerate(hosts):
        extra = min(host.model_room_count, len(warm)) - 1
        loaded = {*warm[:1], *itertools.islice(others, max(0, extra))} if warm else set()
        made.append(SimulatedHost(index, host, by_name, sorted(loaded), slot_count))
    return made


def simulate(trace: Sequence[Request], hosts: Sequence[SimulatedHost], rule: Rule) -> Result:
    """Runs a trace until every request has ended."""
    jobs = tuple(_job(request, hosts[0].models) for request in trace)
    numbers = itertools.count()
    events = [(job.request.at_seconds, next(numbers), _NOBODY, 0) for job in jobs]
    heapq.heapify(events)
    arrivals = iter(jobs)
    versions = [-1] * len(hosts)
    left = len(jobs)
    tick_at = 0.0
    while left:
        if rule.waiting_count and tick_at <= events[0][0]:
            now = tick_at
            rule.tick(now)
        else:
            now, _, index, version = heapq.heappop(events)
            if index == _NOBODY:
                left -= len(rule.arrive(next(arrivals), now))
            elif version == hosts[index].version:
                host = hosts[index]
                versions[index] = -1
                for what, job in host.advance(now):
                    left -= what is Happening.ENDED
                    rule.notice(host, what, job, now)
        if tick_at <= now or not rule.waiting_count:
            tick_at = now + TICK_SECONDS
        for index, host in enumerate(hosts):
            if versions[index] != host.version:
                versions[index] = host.version
                heapq.heappush(events, (host.next_at(), next(numbers), index, host.version))
    return Result(jobs=jobs, load_count=sum(host.load_count for host in hosts))


def _job(request: Request, models: dict[str, ModelProfile]) -> Job:
    model = models[request.model]
    return Job(
        request=request,
        prefill_left=request.prompt_tokens / model.prefill_tokens_per_second,
        decode_left=request.output_tokens / model.decode_tokens_per_second,
    )
