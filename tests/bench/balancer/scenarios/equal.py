"""One model on equal hosts: no worse than a central queue, and worth eight hosts."""

from collections.abc import Sequence

from tests.bench.balancer.contenders.direct import ONE_HOST
from tests.bench.balancer.contenders.port import Contender
from tests.bench.balancer.figures import estimate
from tests.bench.balancer.reference import CHAT_A, EQUAL_HOSTS
from tests.bench.balancer.scenarios.port import Context, Findings, at_least
from tests.bench.balancer.scenarios.traffic import EQUAL
from tests.bench.balancer.session import Closed, Plan
from tests.bench.balancer.traces import Request

__all__ = ["EqualHosts", "steady_rate"]

_PROMPT_TOKENS = 400
_ANSWER_TOKENS = 130
# Twice as many requests under way as there are slots, so that none is ever free for want of work.
_WORKERS_PER_HOST = 2
_BEGIN_RATIO, _END_RATIO = 0.3, 0.9


def steady_rate(closed: Closed, time_scale: float) -> float:
    """Returns completions per fleet second, without the beginning and the end of the run."""
    total = closed.wall_seconds * time_scale
    begin, end = total * _BEGIN_RATIO, total * _END_RATIO
    ended = [each.at_seconds + each.total_seconds for each in closed.outcomes if not each.failure]
    return sum(begin <= at < end for at in ended) / (end - begin)


class EqualHosts:
    """The trace of `EQUAL`, then as much as the fleet can do."""

    name = "equal"
    title = EQUAL.title
    contender_names = EQUAL.contender_names

    async def measure(self, context: Context) -> Findings:
        """Measures and judges."""
        findings = await EQUAL.measure(context)
        rates: dict[str, list[float]] = {}
        for seed in context.seeds:
            alone = await self._rate(context, ONE_HOST, seed, host_count=1)
            rates.setdefault(ONE_HOST.name, []).append(alone)
            for contender in context.chosen(self.contender_names):
                rate = await self._rate(context, contender, seed, host_count=8)
                rates.setdefault(contender.name, []).append(rate)
                context.say(
                    f"  seed {seed} saturated {contender.name:<18} {rate:.2f} answers/s, "
                    f"one host {alone:.2f}"
                )
        for name, values in rates.items():
            findings.lines[f"saturated, answers per second, {name}"] = estimate(values)
        findings.verdicts.append(
            at_least(
                "throughput of eight hosts >= 7.5 x one host",
                _ratios(rates.get("pannier", []), rates[ONE_HOST.name]),
                7.5,
            )
        )
        return findings

    async def _rate(
        self, context: Context, contender: Contender, seed: int, *, host_count: int
    ) -> float:
        count = host_count * (20 if context.quick else 60)
        trace = tuple(
            Request(
                index=index,
                at_seconds=0.0,
                kind="chat",
                model=CHAT_A.name,
                prompt_tokens=_PROMPT_TOKENS,
                output_tokens=_ANSWER_TOKENS,
            )
            for index in range(count)
        )
        hosts = EQUAL_HOSTS[:host_count]
        plan = Plan(hosts=hosts, models=(CHAT_A,), trace=trace, seed=seed)
        async with context.session.in_front(contender, hosts, (CHAT_A,)) as (fleet, taking, folder):
            closed = await context.session.work_through(
                fleet, taking, folder, plan, workers=_WORKERS_PER_HOST * host_count
            )
            return steady_rate(closed, fleet.time_scale)


def _ratios(tops: Sequence[float], bottoms: Sequence[float]) -> list[float]:
    return [top / bottom for top, bottom in zip(tops, bottoms, strict=False)]
