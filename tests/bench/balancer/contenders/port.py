"""What a contender is to the benchmark."""

import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.balancer.fleet import Fleet

__all__ = ["Contender", "Contending"]


@dataclass(frozen=True, slots=True)
class Contending:
    """A contender that takes requests.

    Attributes:
        target: Driver and address for the load generator, `driver=address`.
        pid: Its process; None where it lives in the load generator.
    """

    target: str
    pid: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One of those compared.

    Attributes:
        name: What it is called.
        rule: How it chooses a host, in a few words.
        start: Runs it in front of a fleet, with a folder for its files.
        missing: Says what has to be installed; empty where nothing has.
        version: Says which version runs.
        peer: Whether it is one of those that the balancer is to be better than.
        time_scale_limit: Fastest time it can take part in; its own code would be measured beyond.
    """

    name: str
    rule: str
    start: Callable[[Fleet, Path], AbstractAsyncContextManager[Contending]]
    missing: Callable[[], str] = field(default=lambda: "")
    version: Callable[[], str] = field(default=lambda: "")
    peer: bool = True
    time_scale_limit: float = math.inf
