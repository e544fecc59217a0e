"""Two tenants, one of which floods the fleet: what the other notices."""

from collections.abc import Sequence

from tests.bench.balancer.figures import estimate, summarise
from tests.bench.balancer.reference import CHAT_A, REFERENCE_HOSTS, capacity
from tests.bench.balancer.scenarios.port import PROXIES, Context, Findings, Verdict, at_most
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
