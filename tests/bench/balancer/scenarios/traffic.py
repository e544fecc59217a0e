"""Scenarios that send one trace per seed to each contender and compare."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.bench.balancer.reference import (
    CHAT_A,
    CHAT_B,
    EMBED,
    EQUAL_HOSTS,
    REFERENCE_HOSTS,
    Host,
    ModelProfile,
)
from tests.bench.balancer.scenarios.port import (
    PROXIES,
    Context,
    Findings,
    Verdict,
    at_least,
    best_peer,
    figures_of,
    ratio_verdict,
)
from tests.bench.balancer.scenarios.workloads import (
    MIXED,
    ONE_CHAT_MODEL,
    PREFIXES,
    loaded_trace,
    span,
)
from tests.bench.balancer.session import Plan, Run
from tests.bench.balancer.traces import Bursts, RequestClass
from tests.bench.processes import ProcessEnded

__all__ = ["EQUAL", "SCENARIOS", "Traffic", "first_p99", "run_all"]

_PEERS = (*PROXIES, "litellm-least-busy", "litellm-latency")

Judge = Callable[[Sequence[Run], Context], list[Verdict]]


def first_p99(run: Run) -> float:
    """Time to the first text of chats, 99th percentile."""
    return run.summary.first_p99


async def run_all(
    context: Context, names: Sequence[str], plans: Sequence[Plan], label: str = ""
) -> list[Run]:
    """Runs each plan for each contender; those of a seed come one after the other.

    A run that a process of the contender, or of the harness, did not live through is left out.
    """
    runs: list[Run] = []
    for plan in plans:
        for contender in context.chosen(names):
            shown = f"  seed {plan.seed} {label}{contender.name:<18}"
            try:
                runs.append(await context.session.run(contender, plan))
            except* ProcessEnded as failed:
                context.say(f"{shown} LEFT OUT: {failed.exceptions[0]}")
            else:
                context.say(f"{shown} {_in_short(runs[-1])}")
    return runs


def _in_short(run: Run) -> str:
    return (
        f"{run.summary.request_count:>5} requests, first text p99 {run.summary.first_p99:.2f} s, "
        f"within the service level {run.summary.good_ratio:.1%}, "
        f"{run.wall_seconds:.0f} s on the wall"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """One trace per seed for all.

    Attributes:
        name: Name on the command line.
        title: What it is.
        contender_names: Who takes part.
        hosts: The fleet.
        models: Models of every host.
        classes: What is sent.
        load_ratio: Share of the fleet's capacity that is asked for.
        judge: Compares the runs.
        bursts: Bursts of arrivals; None for a Poisson process.
    """

    name: str
    title: str
    contender_names: tuple[str, ...]
    hosts: tuple[Host, ...]
    models: tuple[ModelProfile, ...]
    classes: tuple[RequestClass, ...]
    load_ratio: float
    judge: Judge
    bursts: Bursts | None = None

    async def measure(self, context: Context) -> Findings:
        """Measures and judges."""
        length = span(context)
        plans = [
            Plan(
                hosts=self.hosts,
                models=self.models,
                trace=loaded_trace(
                    self.classes,
                    self.hosts,
                    load_ratio=self.load_ratio,
                    end_seconds=length.end_seconds,
                    seed=seed,
                    bursts=self.bursts,
                ),
                seed=seed,
                warm_up_seconds=length.warm_up_seconds,
            )
            for seed in context.seeds
        ]
        return self.conclude(await run_all(context, self.contender_names, plans), context)

    def conclude(self, runs: list[Run], context: Context) -> Findings:
        """Judges runs, of one measurement or of several."""
        return Findings(runs=runs, verdicts=self.judge(runs, context))


def _judge_mixed(runs: Sequence[Run], context: Context) -> list[Verdict]:
    best = best_peer(runs, _PEERS, first_p99)
    content = best_peer(runs, _PEERS, lambda run: -run.summary.good_ratio)
    shares = figures_of(runs, content, lambda run: run.summary.good_ratio) if content else []
    return [
        ratio_verdict(
            "p99 time to first text <= 0.25 x the best peer",
            runs,
            "pannier",
            best,
            first_p99,
            0.25,
        ),
        ratio_verdict(
            "the same for the first result of chats and embeddings together",
            runs,
            "pannier",
            best_peer(runs, _PEERS, lambda run: run.summary.any_p99),
            lambda run: run.summary.any_p99,
            0.25,
        ),
        at_least(
            "share within the service level >= 0.90",
            figures_of(runs, "pannier", lambda run: run.summary.good_ratio),
            0.90,
            f"the best peer, {content}, has {sum(shares) / len(shares):.1%}" if shares else "",
        ),
    ]


def _judge_unequal(runs: Sequence[Run], context: Context) -> list[Verdict]:
    best = best_peer(runs, PROXIES, first_p99)
    plain = "nginx-tuned" if "nginx-tuned" in context.contenders else best
    verdicts = [
        ratio_verdict(
            "p99 time to first text <= 0.5 x least-connections",
            runs,
            "pannier",
            plain,
            first_p99,
            0.5,
        )
    ]
    if best != plain:
        verdicts.append(
            ratio_verdict(
                "the same against the best of those with least-connections",
                runs,
                "pannier",
                best,
                first_p99,
                0.5,
            )
        )
    return verdicts


def _judge_prefixes(runs: Sequence[Run], context: Context) -> list[Verdict]:
    plain = "nginx-tuned" if "nginx-tuned" in context.contenders else None
    ours = figures_of(runs, "pannier", _cached_ratio)
    theirs = figures_of(runs, plain, _cached_ratio) if plain else []
    more = [own / other for own, other in zip(ours, theirs, strict=True) if other] if theirs else []
    return [
        at_least(
            "prompt tokens found in prefix caches >= 2 x least-connections",
            more,
            2.0,
            f"share of prompt tokens: {_mean(ours):.1%} against {_mean(theirs):.1%}",
        ),
        ratio_verdict(
            "without a worse p99 time to first text", runs, "pannier", plain, first_p99, 1.0
        ),
    ]


def _cached_ratio(run: Run) -> float:
    asked = run.totals.get("prompt_tokens", 0.0)
    return run.totals.get("cached_tokens", 0.0) / asked if asked else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


_MIXED = Traffic(
    name="mixed",
    title="three models over eight unequal hosts, 60 % load",
    contender_names=("pannier", *_PEERS, "central-fifo"),
    hosts=REFERENCE_HOSTS,
    models=(CHAT_A, CHAT_B, EMBED),
    classes=MIXED,
    load_ratio=0.6,
    judge=_judge_mixed,
)
_UNEQUAL = Traffic(
    name="unequal",
    title="one model over eight unequal hosts, 70 % load",
    contender_names=("pannier", *PROXIES, "central-fifo"),
    hosts=REFERENCE_HOSTS,
    models=(CHAT_A,),
    classes=ONE_CHAT_MODEL,
    load_ratio=0.7,
    judge=_judge_unequal,
)
_PREFIXES = Traffic(
    name="prefixes",
    title="64 shared prefixes of 1-8k tokens, one model, unequal hosts, 60 % load",
    contender_names=("pannier", *PROXIES),
    hosts=REFERENCE_HOSTS,
    models=(CHAT_A,),
    classes=PREFIXES,
    load_ratio=0.6,
    judge=_judge_prefixes,
)
_BURSTS = Traffic(
    name="bursts",
    title="three models over eight unequal hosts, 60 % load in bursts (not in the default set)",
    contender_names=("pannier", *PROXIES, "central-fifo"),
    hosts=REFERENCE_HOSTS,
    models=(CHAT_A, CHAT_B, EMBED),
    classes=MIXED,
    load_ratio=0.6,
    judge=lambda runs, context: [],
    bursts=Bursts(on_seconds=20.0, off_seconds=40.0),
)
EQUAL = Traffic(
    name="equal",
    title="one model over eight equal hosts, 70 % load",
    contender_names=("pannier", "central-fifo", *PROXIES),
    hosts=EQUAL_HOSTS,
    models=(CHAT_A,),
    classes=ONE_CHAT_MODEL,
    load_ratio=0.7,
    judge=lambda runs, context: [
        ratio_verdict(
            "p99 time to first text within 5 % of a central FIFO",
            runs,
            "pannier",
            "central-fifo",
            first_p99,
            1.05,
        )
    ],
)
SCENARIOS = (_MIXED, _UNEQUAL, _PREFIXES, _BURSTS)
