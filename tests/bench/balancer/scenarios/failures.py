"""Hosts that refuse work, hang, vanish and die, while users go on sending.

Half the capacity is asked for. No two troubles together take so much that the rest could not do the
work. A hung host answers every control request; a storm of 503 comes from the fastest host, which
therefore looks idle.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tests.bench.balancer.figures import Summary, estimate, percentile
from tests.bench.balancer.fleet import Fleet
from tests.bench.balancer.reference import CHAT_A, REFERENCE_HOSTS
from tests.bench.balancer.scenarios.port import (
    PROXIES,
    Context,
    Findings,
    Verdict,
    at_most,
    best_peer,
    figures_of,
    ratio_verdict,
)
from tests.bench.balancer.scenarios.traffic import run_all
from tests.bench.balancer.scenarios.workloads import ONE_CHAT_MODEL, loaded_trace
from tests.bench.balancer.session import Plan, Run, Script

__all__ = ["Failures", "Troubles"]

_LOAD_RATIO = 0.5
_WARM_UP_SECONDS = 60.0
_PEERS = (
    *PROXIES,
    "nginx-tuned-60s",
    "haproxy-tuned-60s",
    "litellm-least-busy",
)


@dataclass(frozen=True, slots=True)
class Troubles:
    """When what happens, in seconds of the trace.

    Attributes:
        storm: Begin and end of the 503 storm of host 0.
        hang: Begin and end of the time in which hosts 2 and 5 take work and do not do it.
        refusal: When host 3 cuts its connections and refuses new ones, and until when.
        crash: When host 4 is killed, and when it is started again.
        end_seconds: End of the trace.
    """

    storm: tuple[float, float]
    hang: tuple[float, float]
    refusal: tuple[float, float]
    crash: tuple[float, float]
    end_seconds: float

    def covers(self, seconds: float) -> bool:
        """Tells whether something is wrong at a time."""
        windows = (self.storm, self.hang, self.refusal, self.crash)
        return any(begin <= seconds < end for begin, end in windows)

    def script(self) -> Script:
        """Returns what makes it happen."""

        async def play(fleet: Fleet, wait_for: Callable[[float], Awaitable[None]]) -> None:
            events: list[tuple[float, Callable[[], Awaitable[None]]]] = [
                (self.storm[0], lambda: fleet.order_fault(0, {"status": 503})),
                (self.storm[1], lambda: fleet.end_faults(0)),
                (self.hang[0], lambda: _hang(fleet)),
                (self.hang[1], lambda: _end_hang(fleet)),
                (self.refusal[0], lambda: _refuse(fleet, self.refusal[1] - self.refusal[0])),
                (self.crash[0], lambda: fleet.kill_host(4)),
                (self.crash[1], lambda: fleet.start_host(4)),
            ]
            events.sort(key=lambda event: event[0])
            for at, happen in events:
                await wait_for(at)
                await happen()

        return play


async def _refuse(fleet: Fleet, seconds: float) -> None:
    """Closes a host's port, and the connections to it, for a time; it keeps what it has loaded."""
    fault = {"refuse": True, "for_seconds": seconds / fleet.time_scale}
    await fleet.order_fault(3, fault)


async def _hang(fleet: Fleet) -> None:
    for host in (2, 5):
        await fleet.order_fault(host, {"hang": True})


async def _end_hang(fleet: Fleet) -> None:
    for host in (2, 5):
        await fleet.end_faults(host)


_FULL = Troubles(
    storm=(80, 200), hang=(220, 380), refusal=(300, 420), crash=(440, 520), end_seconds=560
)
_QUICK = Troubles(
    storm=(70, 120), hang=(130, 210), refusal=(170, 230), crash=(240, 270), end_seconds=290
)


class Failures:
    """The failure script."""

    name = "failures"
    title = "failure script: 503 storm, two hung hosts, one refusing, one killed; 50 % load"
    contender_names = ("pannier", "pannier-resume", *_PEERS)

    async def measure(self, context: Context) -> Findings:
        """Measures and judges."""
        troubles = _QUICK if context.quick else _FULL
        plans = [
            Plan(
                hosts=REFERENCE_HOSTS,
                models=(CHAT_A,),
                trace=loaded_trace(
                    ONE_CHAT_MODEL,
                    REFERENCE_HOSTS,
                    load_ratio=_LOAD_RATIO,
                    end_seconds=troubles.end_seconds,
                    seed=seed,
                ),
                seed=seed,
                warm_up_seconds=_WARM_UP_SECONDS,
                script=troubles.script(),
            )
            for seed in context.seeds
        ]
        return self.conclude(await run_all(context, self.contender_names, plans), context)

    def conclude(self, runs: list[Run], context: Context) -> Findings:
        """Judges runs, of one measurement or of several."""
        findings = Findings(runs=runs)
        troubles = _QUICK if context.quick else _FULL

        def window_p95(run: Run) -> float:
            within = [each for each in run.outcomes if troubles.covers(each.at_seconds)]
            return percentile([each.first_or_never for each in within], 0.95)

        for contender in context.chosen(self.contender_names):
            findings.lines[f"p95 time to first text in the windows, {contender.name}"] = estimate(
                figures_of(runs, contender.name, window_p95)
            )
        for ours in ("pannier", "pannier-resume"):
            if ours in context.contenders:
                findings.verdicts += _judge(ours, runs, window_p95)
        return findings


def _judge(ours: str, runs: Sequence[Run], window_p95: Callable[[Run], float]) -> list[Verdict]:
    def failed(run: Run) -> float:
        return run.summary.failed_ratio

    tuned = best_peer(runs, [peer for peer in _PEERS if peer.startswith("nginx-tuned")], failed)
    theirs = estimate(figures_of(runs, tuned, failed)).mean if tuned else float("nan")
    own = figures_of(runs, ours, failed)
    kinds = _failures([run.summary for run in runs if run.contender == ours])
    return [
        at_most(f"{ours}: failed <= 0.05 %", own, 0.0005, kinds),
        at_most(f"{ours}: failed not above {tuned or 'the best tuned nginx'}", own, theirs),
        ratio_verdict(
            f"{ours}: p95 time to first text in the windows <= 0.7 x the best peer",
            runs,
            ours,
            best_peer(runs, _PEERS, window_p95),
            window_p95,
            0.7,
        ),
    ]


def _failures(summaries: Sequence[Summary]) -> str:
    counts: dict[str, int] = {}
    for summary in summaries:
        for kind, count in summary.failures.items():
            counts[kind] = counts.get(kind, 0) + count
    total = sum(summary.request_count for summary in summaries)
    return f"{counts or 'none'} of {total} requests"
