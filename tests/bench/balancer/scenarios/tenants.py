"""Two tenants, one of which floods the fleet: what the other notices."""

from collections.abc import Sequence

from tests.bench.balancer.figures import estimate, percentile, summarise, wait_for_next
from tests.bench.balancer.reference import CHAT_A, REFERENCE_HOSTS, capacity
from tests.bench.balancer.scenarios.port import (
    PROXIES,
    Context,
    Findings,
    Verdict,
    at_most,
    figures_of,
)
from tests.bench.balancer.scenarios.traffic import run_all
from tests.bench.balancer.scenarios.workloads import ONE_CHAT_MODEL, Span, span
from tests.bench.balancer.session import Plan, Run
from tests.bench.balancer.traces import Request, Source, make_trace, offered_rate

__all__ = ["Tenants"]

_QUIET, _FLOODING = "quiet", "flooding"
_QUIET_LOAD_RATIO = 0.3
_FLOOD_LOAD_RATIO = 1.5


class Tenants:
    """The quiet tenant's trace alone, and the same trace with the flood on top."""

    name = "tenants"
    title = "two tenants, one flooding: 30 % load by one, 150 % by the other"
    contender_names = ("pannier", *PROXIES)

    async def measure(self, context: Context) -> Findings:
        """Measures and judges."""
        length = span(context)
        alone = await run_all(
            context,
            self.contender_names,
            [_plan(seed, length, flooded=False) for seed in context.seeds],
            "alone ",
        )
        flooded = await run_all(
            context,
            self.contender_names,
            [_plan(seed, length, flooded=True) for seed in context.seeds],
            "flooded ",
        )
        findings = Findings(runs=flooded)
        for contender in context.chosen(self.contender_names):
            findings.verdicts += _judge(contender.name, alone, flooded)
            for what, runs in (("alone", alone), ("flooded", flooded)):
                findings.lines[f"quiet tenant's p99 to first text, {what}, {contender.name}"] = (
                    estimate([first for first, _ in _quiet_p99(contender.name, runs).values()])
                )
                pooled = [first for run in runs for first in _quiet_firsts(contender.name, run)]
                findings.lines[f"the same of all seeds together, {what}, {contender.name}"] = (
                    estimate([percentile(pooled, 0.99)])
                )
            # Who comes when all slots are taken waits at least for that.
            findings.lines[f"wait for the next end of an answer, p99, {contender.name}"] = estimate(
                figures_of(flooded, contender.name, _next_end_p99)
            )
        return findings


def _plan(seed: int, length: Span, *, flooded: bool) -> Plan:
    def source(tenant: str, load_ratio: float) -> Source:
        return Source(
            classes=ONE_CHAT_MODEL,
            rate_per_second=offered_rate(ONE_CHAT_MODEL, load_ratio, capacity(REFERENCE_HOSTS)),
            begin_seconds=0.0,
            end_seconds=length.end_seconds,
            tenant=tenant,
        )

    sources = [source(_QUIET, _QUIET_LOAD_RATIO)]
    if flooded:
        sources.append(source(_FLOODING, _FLOOD_LOAD_RATIO))
    trace: tuple[Request, ...] = make_trace(sources, seed)
    return Plan(
        hosts=REFERENCE_HOSTS,
        models=(CHAT_A,),
        trace=trace,
        seed=seed,
        warm_up_seconds=length.warm_up_seconds,
    )


def _quiet_firsts(contender: str, run: Run) -> list[float]:
    """Returns the quiet tenant's times to the first text; none where another one ran."""
    if run.contender != contender:
        return []
    return [each.first_or_never for each in run.outcomes if each.tenant == _QUIET]


def _next_end_p99(run: Run) -> float:
    """Returns how long one waits for an answer to end while all slots are taken."""
    ends = sorted(each.at_seconds + each.total_seconds for each in run.outcomes if not each.failure)
    # When nobody comes any more, what the flood has left in the queue is served for minutes.
    last = max((each.at_seconds for each in run.outcomes), default=0.0)
    served = [end for end in ends if end > last]
    return wait_for_next(served[: len(served) // 2], 0.99)


def _quiet_p99(contender: str, runs: Sequence[Run]) -> dict[int, tuple[float, float]]:
    """Returns the quiet tenant's p99 to the first text and to the end, by seed."""
    summaries = {
        run.seed: summarise(each for each in run.outcomes if each.tenant == _QUIET)
        for run in sorted(runs, key=lambda run: run.seed)
        if run.contender == contender
    }
    return {seed: (each.first_p99, each.total_p99) for seed, each in summaries.items()}


def _judge(contender: str, alone: Sequence[Run], flooded: Sequence[Run]) -> list[Verdict]:
    with_flood, without = _quiet_p99(contender, flooded), _quiet_p99(contender, alone)
    seeds = sorted(with_flood.keys() & without.keys())
    return [
        at_most(
            f"{contender}: the quiet tenant's p99 {what} <= 1.3 x its p99 alone",
            [with_flood[seed][place] / without[seed][place] for seed in seeds],
            1.3,
        )
        for place, what in enumerate(("time to first text", "time to the end"))
    ]
