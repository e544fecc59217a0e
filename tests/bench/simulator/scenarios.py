"""What is simulated: fleets, loads and rules."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.bench.balancer.reference import (
    CHAT_A,
    CHAT_B,
    EMBED,
    REFERENCE_HOSTS,
    Host,
    ModelProfile,
    capacity,
)
from tests.bench.balancer.scenarios.workloads import MIXED, ONE_CHAT_MODEL
from tests.bench.balancer.traces import RequestClass, Source, make_trace, offered_rate
from tests.bench.simulator.engine import Result, make_hosts, simulate
from tests.bench.simulator.hosts import SimulatedHost
from tests.bench.simulator.planned import Planned
from tests.bench.simulator.rules import CentralFifo, LeastConnections, RoundRobin, Rule

__all__ = ["FLOODING", "QUIET", "RULES", "SCENARIOS", "Scenario", "run"]

QUIET, FLOODING = "default", "flooding"

_MODELS = (CHAT_A, EMBED, CHAT_B)
_MEAN_HOST = Host(sum(host.speed for host in REFERENCE_HOSTS) / len(REFERENCE_HOSTS), 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A fleet and what it is asked.

    Attributes:
        title: What it shows.
        hosts: The fleet.
        models: Its models.
        classes: What is asked.
        cold: Models that no host has loaded at the start.
        load_ratio: Work asked for, as a share of what the fleet can do; None for the caller's.
        model_limit: Models that the planner believes each host to hold; None for the truth.
        flood_ratio: Work that a second tenant asks for on top.
    """

    title: str
    hosts: Sequence[Host] = REFERENCE_HOSTS
    models: Sequence[ModelProfile] = _MODELS
    classes: Sequence[RequestClass] = MIXED
    cold: Sequence[ModelProfile] = ()
    load_ratio: float | None = None
    model_limit: int | None = None
    flood_ratio: float = 0.0


SCENARIOS = {
    "mixed": Scenario(title="three models, unequal hosts"),
    "uneven": Scenario(
        title="one model, unequal hosts", models=(CHAT_A,), classes=ONE_CHAT_MODEL, load_ratio=0.7
    ),
    "equal": Scenario(
        title="one model, equal hosts",
        hosts=(_MEAN_HOST,) * 8,
        models=(CHAT_A,),
        classes=ONE_CHAT_MODEL,
        load_ratio=0.7,
    ),
    "overload": Scenario(title="three models, more than the fleet can do", load_ratio=1.2),
    "cold": Scenario(title="three models, nothing loaded", cold=_MODELS),
    "missing": Scenario(title="three models, one loaded nowhere", cold=(CHAT_B,)),
    "room": Scenario(title="three models, room taken for greater than it is", model_limit=3),
    "quiet": Scenario(
        title="one model, one quiet tenant",
        models=(CHAT_A,),
        classes=ONE_CHAT_MODEL,
        load_ratio=0.3,
    ),
    "tenants": Scenario(
        title="one model, a quiet tenant beside one that floods; figures of the quiet one",
        models=(CHAT_A,),
        classes=ONE_CHAT_MODEL,
        load_ratio=0.3,
        flood_ratio=1.5,
    ),
    "mixed-tenants": Scenario(
        title="three models, a quiet tenant beside one that floods; figures of the quiet one",
        load_ratio=0.2,
        flood_ratio=1.5,
    ),
    "one-host": Scenario(
        title="two models on one host with room for one",
        hosts=(Host(1.0, 1),),
        models=(CHAT_A, CHAT_B),
        classes=MIXED[:2],
        load_ratio=0.4,
    ),
    "two-hosts": Scenario(
        title="two models on two hosts with room for one",
        hosts=(Host(1.0, 1), Host(0.6, 1)),
        models=(CHAT_A, CHAT_B),
        classes=MIXED[:2],
        load_ratio=0.5,
    ),
}

Factory = Callable[[Sequence[SimulatedHost], random.Random, Scenario], Rule]

RULES: dict[str, Factory] = {
    "planner": lambda hosts, rng, scenario: Planned(hosts, rng, model_limit=scenario.model_limit),
    "least-connections": lambda hosts, rng, _: LeastConnections(hosts, rng),
    "central-fifo": lambda hosts, *_: CentralFifo(hosts),
    "round-robin": lambda hosts, *_: RoundRobin(hosts),
}


def run(scenario: Scenario, rule: str, *, load_ratio: float, seconds: float, seed: int) -> Result:
    """Simulates a scenario once.

    Args:
        scenario: Which.
        rule: Name of the rule.
        load_ratio: Work asked for, where the scenario does not say.
        seconds: Length of the trace.
        seed: Equal seeds give equal results.
    """

    def source(tenant: str, ratio: float) -> Source:
        rate = offered_rate(scenario.classes, ratio, capacity(scenario.hosts))
        return Source(
            classes=tuple(scenario.classes),
            rate_per_second=rate,
            begin_seconds=0.0,
            end_seconds=seconds,
            tenant=tenant,
        )

    sources = [source(QUIET, scenario.load_ratio or load_ratio)]
    if scenario.flood_ratio:
        sources.append(source(FLOODING, scenario.flood_ratio))
    trace = make_trace(sources, seed)
    hosts = make_hosts(scenario.hosts, scenario.models, cold=scenario.cold)
    made = RULES[rule](hosts, random.Random(f"{seed}/{rule}"), scenario)
    return simulate(trace, hosts, made)
