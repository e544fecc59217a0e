"""Many texts to embed: eight hosts against one, and batches against a call per text."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.balancer.contenders.direct import ONE_HOST
from tests.bench.balancer.contenders.port import Contender
from tests.bench.balancer.figures import estimate, paired_ratio
from tests.bench.balancer.reference import EMBED, EQUAL_HOSTS
from tests.bench.balancer.scenarios.port import PROXIES, Context, Findings, Verdict
from tests.bench.balancer.session import Plan
from tests.bench.balancer.traces import Request

__all__ = ["Embeddings"]

_TEXT_COUNT = 2000
_TEXT_TOKENS = 100
# The longest list that a call of the balancer takes is 512 texts.
_BATCH = 500
# Vectors cost real processor time to write and read, which must not be what is measured.
_TIME_SCALE = 1.0


@dataclass(frozen=True, slots=True)
class _Way:
    """A way to have texts embedded; slow ones are measured with fewer texts.

    Attributes:
        name: What it is called.
        text_count: Texts to embed.
        batch: Texts per call.
        workers: Calls under way at a time.
    """

    name: str
    text_count: int
    batch: int
    workers: int


_WARM_UP = _Way("warm-up", 256, 4, 16)
_ALONE = _Way("one host", 500, 125, 4)
_BATCHED = _Way("500 per call, 4 at a time", _TEXT_COUNT, _BATCH, 4)
_NAIVE = _Way("one per call, one at a time", 250, 1, 1)
_PARALLEL = _Way("one per call, 8 at a time", 1000, 1, 8)


def _calls(text_count: int, batch: int) -> tuple[Request, ...]:
    return tuple(
        Request(
            index=begin,
            at_seconds=0.0,
            kind="embed",
            model=EMBED.name,
            prompt_tokens=_TEXT_TOKENS,
            output_tokens=0,
            text_count=min(batch, text_count - begin),
        )
        for begin in range(0, text_count, batch)
    )


class Embeddings:
    """Texts embedded per second, by who asks how."""

    name = "embeddings"
    title = "2,000 texts over eight equal hosts"
    contender_names = ("pannier", *PROXIES)

    async def measure(self, context: Context) -> Findings:
        """Measures and judges."""
        findings = Findings()
        rates: dict[tuple[str, str], list[float]] = {}
        for seed in context.seeds:
            alone = await _rates(context, ONE_HOST, (_ALONE,), seed)
            for contender in context.chosen(self.contender_names):
                ways = (_BATCHED, _NAIVE, _PARALLEL)
                measured = await _rates(context, contender, ways, seed)
                for way, rate in {**measured, **alone}.items():
                    rates.setdefault((contender.name, way), []).append(rate)
                shown = ", ".join(f"{way}: {rate:.0f}" for way, rate in measured.items())
                context.say(f"  seed {seed} {contender.name:<18} texts/s, {shown}")
        for (name, way), values in rates.items():
            findings.lines[f"texts per second, {way}, {name}"] = estimate(values)
        ours = rates.get(("pannier", _BATCHED.name), [])
        findings.verdicts = [
            _speed_up(">= 7 x one host", ours, rates.get(("pannier", _ALONE.name), []), 7.0),
            _speed_up(
                ">= 3 x a client that sends one text per call, one call after the other",
                ours,
                rates.get(("pannier", _NAIVE.name), []),
                3.0,
            ),
        ]
        return findings


async def _rates(
    context: Context, contender: Contender, ways: Sequence[_Way], seed: int
) -> dict[str, float]:
    """Measures texts per second for each way; 0 where a call failed."""
    hosts = EQUAL_HOSTS[:1] if contender is ONE_HOST else EQUAL_HOSTS
    rates = {}
    async with context.session.in_front(contender, hosts, (EMBED,), time_scale=_TIME_SCALE) as (
        fleet,
        taking,
        folder,
    ):
        for way in (_WARM_UP, *ways):
            calls = _calls(way.text_count, way.batch)
            plan = Plan(hosts=hosts, models=(EMBED,), trace=calls, seed=seed)
            closed = await context.session.work_through(
                fleet, taking, folder, plan, workers=way.workers
            )
            failed = any(each.failure for each in closed.outcomes)
            seconds = closed.wall_seconds * fleet.time_scale
            rates[way.name] = 0.0 if failed else way.text_count / seconds
    del rates[_WARM_UP.name]
    return rates


def _speed_up(goal: str, fast: Sequence[float], slow: Sequence[float], limit: float) -> Verdict:
    return Verdict(goal=goal, measured=paired_ratio(fast, slow), limit=limit, upper=False)
