"""Whether the machine could carry the load: the same requests through instant backends.

With nothing to wait for, what limits the rate is the processor time of stand-ins and load
generator. As long as they could carry several times what is offered, waiting in the measured runs
comes from the fleet being busy, not from this machine.
"""

from dataclasses import dataclass

from tests.bench.balancer.contenders.direct import CENTRAL_FIFO
from tests.bench.balancer.reference import CHAT_A, CHAT_B, EMBED, REFERENCE_HOSTS, Host, capacity
from tests.bench.balancer.scenarios.workloads import MIXED, loaded_trace
from tests.bench.balancer.session import Plan, Session
from tests.bench.balancer.traces import offered_rate

__all__ = ["CapacityCheck", "check_capacity"]

_INSTANT_HOSTS = (Host(1e5, 3),) * 8
_MODELS = (CHAT_A, CHAT_B, EMBED)
_LOAD_RATIO = 0.6
_WORKERS = 32
_WANTED_RATIO = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityCheck:
    """What the check found, per wall second.

    Attributes:
        carried: Requests per second that harness and stand-ins can carry.
        offered: Requests per second that the mixed scenario offers.
        tokens: Tokens per second that went through.
    """

    carried: float
    offered: float
    tokens: float

    @property
    def sufficient(self) -> bool:
        """Whether the machine is no bottleneck."""
        return self.carried >= _WANTED_RATIO * self.offered

    def __str__(self) -> str:
        """Writes the check's result."""
        return (
            f"null run: {self.carried:.0f} requests/s and {self.tokens:.0f} tokens/s carried, "
            f"{self.offered:.1f} requests/s offered: {self.carried / self.offered:.1f} x "
            f"({'enough' if self.sufficient else f'NOT ENOUGH, want {_WANTED_RATIO:.0f} x'})"
        )


async def check_capacity(session: Session) -> CapacityCheck:
    """Works through the mixed scenario's requests with instant backends."""
    seconds = 300.0
    trace = loaded_trace(
        MIXED, REFERENCE_HOSTS, load_ratio=_LOAD_RATIO, end_seconds=seconds, seed=0
    )
    plan = Plan(hosts=_INSTANT_HOSTS, models=_MODELS, trace=trace, seed=0)
    async with session.in_front(CENTRAL_FIFO, _INSTANT_HOSTS, _MODELS, time_scale=1.0) as (
        fleet,
        taking,
        folder,
    ):
        closed = await session.work_through(fleet, taking, folder, plan, workers=_WORKERS)
    rate = offered_rate(MIXED, _LOAD_RATIO, capacity(REFERENCE_HOSTS))
    return CapacityCheck(
        carried=len(trace) / closed.wall_seconds,
        offered=rate * session.time_scale,
        tokens=sum(each.token_count for each in closed.outcomes if each.kind == "chat")
        / closed.wall_seconds,
    )
