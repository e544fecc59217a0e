"""A replica that takes and releases slots without end, and writes down when it held which.

Run as `python -m tests.kit.reservation_worker URL LOG NAME`; a line on standard input ends it. The
name decides what it owns while Redis is away. Each line of the log is
`<event> <monotonic seconds> <resource> <token>`; the clock is that of the machine, so the logs of
several processes can be laid on top of each other. Between `got` and `back` the slot was in use for
certain.
"""

import asyncio
import os
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from services.balancer.adapters.reservations import open_reservations
from services.balancer.share_slots import SharedReservations
from services.common.clock import SystemClock

__all__ = ["Interval", "most_at_once", "read_intervals"]

_MODEL = "a-model:latest"
_BACKENDS = [f"backend-{number}:11434" for number in range(8)]
_HOLD_SECONDS = (0.002, 0.03)
_PAUSE_SECONDS = 0.002


@dataclass(frozen=True, slots=True)
class Interval:
    """A slot in use.

    Attributes:
        resource: What was held.
        since: From when, monotonic seconds.
        until: Until when; the end of its process where it was never given back.
    """

    resource: str
    since: float
    until: float


def read_intervals(log: Path, *, ended_at: float) -> list[Interval]:
    """Reads what one process held."""
    open_since: dict[str, tuple[str, float]] = {}
    intervals = []
    for line in log.read_text().splitlines():
        event, at, resource, token = line.split(" ")
        if event == "got":
            open_since[token] = (resource, float(at))
        elif event == "back":
            intervals.append(Interval(*open_since.pop(token), float(at)))
    intervals += [Interval(resource, since, ended_at) for resource, since in open_since.values()]
    return intervals


def most_at_once(intervals: list[Interval]) -> Counter[str]:
    """Returns the most slots of each resource that were in use at one moment."""
    events = [(each.since, 1, each.resource) for each in intervals]
    events += [(each.until, -1, each.resource) for each in intervals]
    held: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for _, step, resource in sorted(events):
        held[resource] += step
        most[resource] = max(most[resource], held[resource])
    return most


async def _use(reservations: SharedReservations, log: int, rng: random.Random) -> None:
    while True:
        backend_id = rng.choice(_BACKENDS)
        is_load = rng.random() < 0.1
        if is_load:
            token = await reservations.take_load(backend_id, _MODEL)
        else:
            token = await reservations.take(backend_id, _MODEL, 1)
        if token is None:
            await asyncio.sleep(_PAUSE_SECONDS)
            continue
        resource = f"{backend_id}/{'load' if is_load else _MODEL}"
        os.write(log, f"got {time.monotonic()} {resource} {token}\n".encode())
        try:
            await asyncio.sleep(rng.uniform(*_HOLD_SECONDS))
        finally:
            os.write(log, f"back {time.monotonic()} {resource} {token}\n".encode())
            reservations.release(token)


async def _main(url: str, path: Path, replica_id: str) -> None:
    rng = random.Random()
    log = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    loop = asyncio.get_running_loop()
    async with open_reservations(url, clock=SystemClock(), replica_id=replica_id) as reservations:
        users = [loop.create_task(_use(reservations, log, rng)) for _ in range(6)]
        await asyncio.to_thread(sys.stdin.readline)
        for user in users:
            user.cancel()
        await asyncio.wait(users)
    os.close(log)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
