"""What the hop costs where nothing has to wait: whole calls, many deltas, many requests."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tests.bench.balancer.contenders.port import Contender
from tests.bench.balancer.figures import Outcome, estimate, percentile
from tests.bench.balancer.reference import CHAT_A, EMBED, Host, ModelProfile
from tests.bench.balancer.scenarios.port import PROXIES, Context, Findings, at_least, at_most
from tests.bench.balancer.session import Closed, Plan
from tests.bench.balancer.traces import Request

__all__ = ["Overhead", "growth_ratio"]

_INSTANT_HOSTS = (Host(1e5, 2),) * 8
# 180 tokens per second and stream: slow enough that the stand-in sends them one at a time.
_PACED_HOSTS = (Host(3.0, 2),) * 8
_MODELS = (CHAT_A, EMBED)
_SHORT_TOKENS, _LONG_TOKENS = 16, 1000
_STREAMS = 8
_SOAK_WORKERS = 16
_KINDS = (("chat", CHAT_A, _SHORT_TOKENS), ("embed", EMBED, 0))


def growth_ratio(samples: Sequence[int]) -> float:
    """Returns by how much memory grew from the second fifth of a run to its last tenth."""
    count = len(samples)
    early = samples[count // 5 : 2 * count // 5] or samples[:1]
    late = samples[-max(1, count // 10) :]
    return (sum(late) / len(late)) / (sum(early) / len(early)) - 1


@dataclass(slots=True)
class _Measured:
    """Figures of a contender, one per seed; milliseconds by kind, and counts per second."""

    p50: dict[str, list[float]] = field(default_factory=lambda: {"chat": [], "embed": []})
    p99: dict[str, list[float]] = field(default_factory=lambda: {"chat": [], "embed": []})
    deltas: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    soak: Closed | None = None


class Overhead:
    """Latency added to a direct call, deltas per core, memory over many requests."""

    name = "overhead"
    title = "overhead over a direct call, nothing waits"
    contender_names = ("pannier", *PROXIES, "litellm-shuffle")

    async def measure(self, context: Context) -> Findings:
        """Measures and judges."""
        findings = Findings()
        for contender in context.chosen(self.contender_names):
            measured = _Measured()
            await _measure_calls(context, contender, measured)
            await _measure_streams(context, contender, measured)
            _report(findings, contender.name, measured)
            context.say(f"  {contender.name} done")
        return findings


async def _measure_calls(context: Context, contender: Contender, measured: _Measured) -> None:
    """Sends each call to a host and to the contender in turn; then many to the balancer alone."""
    session = context.session
    count = 100 if context.quick else 600
    async with session.in_front(contender, _INSTANT_HOSTS, _MODELS, time_scale=1.0) as (
        fleet,
        taking,
        folder,
    ):
        both = [f"ollama={fleet.urls[0]}", taking.target]
        warm_up = Plan(hosts=fleet.hosts, models=_MODELS, trace=_warm_up(), seed=0)
        await session.work_through(fleet, taking, folder, warm_up, workers=1, targets=both)
        for seed in context.seeds:
            for kind, model, tokens in _KINDS:
                plan = Plan(
                    hosts=fleet.hosts,
                    models=_MODELS,
                    trace=_requests(kind, model, count, tokens),
                    seed=seed,
                )
                closed = await session.work_through(
                    fleet, taking, folder, plan, workers=1, targets=both
                )
                measured.p50[kind].append(_added_milliseconds(closed.outcomes, 0.5))
                measured.p99[kind].append(_added_milliseconds(closed.outcomes, 0.99))
        if contender.name == "pannier":
            many = _requests("chat", CHAT_A, 3_000 if context.quick else 100_000, 4)
            plan = replace(warm_up, trace=many)
            measured.soak = await session.work_through(
                fleet, taking, folder, plan, workers=_SOAK_WORKERS
            )


async def _measure_streams(context: Context, contender: Contender, measured: _Measured) -> None:
    """Has a stream per host run all the time."""
    count = _STREAMS * (1 if context.quick else 3)
    async with context.session.in_front(contender, _PACED_HOSTS, _MODELS, time_scale=1.0) as (
        fleet,
        taking,
        folder,
    ):
        for seed in (0, *context.seeds):
            trace = _requests("chat", CHAT_A, count, _LONG_TOKENS)
            closed = await context.session.work_through(
                fleet,
                taking,
                folder,
                Plan(hosts=fleet.hosts, models=_MODELS, trace=trace, seed=seed),
                workers=_STREAMS,
            )
            if seed == 0:  # The models have been loaded now.
                continue
            seconds = max(closed.contender_cpu_seconds, 1e-3)
            measured.deltas.append(sum(each.message_count for each in closed.outcomes) / seconds)
            measured.tokens.append(sum(each.token_count for each in closed.outcomes) / seconds)


def _requests(
    kind: str, model: ModelProfile, count: int, output_tokens: int
) -> tuple[Request, ...]:
    return tuple(
        Request(
            index=index,
            at_seconds=0.0,
            kind=kind,
            model=model.name,
            prompt_tokens=100,
            output_tokens=output_tokens,
        )
        for index in range(count)
    )


def _warm_up() -> tuple[Request, ...]:
    each_kind = [_requests(kind, model, 64, tokens) for kind, model, tokens in _KINDS]
    return tuple(request for requests in each_kind for request in requests)


def _added_milliseconds(outcomes: Sequence[Outcome], ratio: float) -> float:
    """Returns by how much a percentile of the second target is above that of the first."""
    direct, through = (
        percentile([each.total_or_never for each in outcomes if each.target == target], ratio)
        for target in (0, 1)
    )
    return (through - direct) * 1000


def _report(findings: Findings, name: str, measured: _Measured) -> None:
    """Adds the figures of a contender, and for the balancer how they compare with the goals."""
    for kind in ("chat", "embed"):
        p50, p99 = measured.p50[kind], measured.p99[kind]
        findings.lines[f"added to a direct {kind} call, p50 ms, {name}"] = estimate(p50)
        findings.lines[f"added to a direct {kind} call, p99 ms, {name}"] = estimate(p99)
        if name == "pannier":
            findings.verdicts += [
                at_most(f"added to a direct {kind} call, p50 <= 1.5 ms", p50, 1.5),
                at_most(f"added to a direct {kind} call, p99 <= 5 ms", p99, 5.0),
            ]
    findings.lines[f"tokens streamed per processor second, {name}"] = estimate(measured.tokens)
    if name == "pannier":
        findings.verdicts.append(
            at_least("deltas streamed per second and core >= 5,000", measured.deltas, 5000.0)
        )
    if measured.soak is not None:
        _report_soak(findings, measured.soak)


def _report_soak(findings: Findings, soak: Closed) -> None:
    count = len(soak.outcomes)
    failed = sum(bool(each.failure) for each in soak.outcomes)
    findings.lines["soak, requests per second"] = estimate([count / soak.wall_seconds])
    findings.lines["soak, requests per processor second of the balancer"] = estimate(
        [count / max(soak.contender_cpu_seconds, 1e-3)]
    )
    findings.lines["soak, resident MiB at the end"] = estimate([soak.resident_bytes[-1] / 2**20])
    findings.verdicts.append(
        at_most(
            f"memory flat over {count:,} requests: growth <= 5 %",
            [growth_ratio(soak.resident_bytes)],
            0.05,
            f"{failed} of {count} failed",
        )
    )
