"""Nobody waits for ever: what a flood of other requests leaves to the one that needs a load."""

import random

import pytest

from tests.bench.balancer.reference import CHAT_A, CHAT_B, Host, work_seconds
from tests.bench.balancer.traces import Request
from tests.bench.simulator.engine import Result, make_hosts, simulate
from tests.bench.simulator.planned import Planned

PROMPT_TOKENS, OUTPUT_TOKENS = 1000, 120
FLOOD_SECONDS, ARRIVES_AT_SECONDS, LONGEST_WAIT_SECONDS = 240.0, 60.0, 120.0


def chat(index: int, at_seconds: float, model: str) -> Request:
    return Request(
        index=index,
        at_seconds=at_seconds,
        kind="chat",
        model=model,
        prompt_tokens=PROMPT_TOKENS,
        output_tokens=OUTPUT_TOKENS,
    )


def flooded(speeds: tuple[float, ...], load_ratio: float, seed: int) -> Result:
    """One request for a model that nobody has in memory, amid a flood for the one all have."""
    rng = random.Random(seed)
    hosts = make_hosts([Host(speed, 1) for speed in speeds], (CHAT_A, CHAT_B), cold=(CHAT_B,))
    rate = load_ratio * sum(speeds) / work_seconds(CHAT_A, PROMPT_TOKENS, OUTPUT_TOKENS)
    arrivals = [(ARRIVES_AT_SECONDS, CHAT_B.name)]
    at = 0.0
    while at < FLOOD_SECONDS:
        at += rng.expovariate(rate)
        arrivals.append((at, CHAT_A.name))
    trace = [chat(index, *each) for index, each in enumerate(sorted(arrivals))]
    return simulate(trace, hosts, Planned(hosts, rng))


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    ("speeds", "load_ratio"), [((1.0,), 0.8), ((1.0,), 1.3), ((1.0, 0.35), 0.8), ((1.0, 0.35), 1.2)]
)
def test_a_model_that_no_host_has_room_for_gets_its_turn(
    speeds: tuple[float, ...], load_ratio: float, seed: int
) -> None:
    result = flooded(speeds, load_ratio, seed)
    (rare,) = [job for job in result.jobs if job.request.model == CHAT_B.name]
    common = [job for job in result.jobs if job.request.model == CHAT_A.name]
    # Long before the flood ends; a load and the requests ahead take their time.
    assert rare.first_token_at - ARRIVES_AT_SECONDS < LONGEST_WAIT_SECONDS
    # And the flood gets the host back.
    assert all(job.ended_at > 0 for job in common)
