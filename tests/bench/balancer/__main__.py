"""Measures the balancer against its peers: `python -m tests.bench.balancer`."""

import argparse
import asyncio
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.balancer import report
from tests.bench.balancer.capacity_check import check_capacity
from tests.bench.balancer.contenders.everyone import everyone
from tests.bench.balancer.contenders.port import Contender
from tests.bench.balancer.scenarios import traffic
from tests.bench.balancer.scenarios.embeddings import Embeddings
from tests.bench.balancer.scenarios.equal import EqualHosts
from tests.bench.balancer.scenarios.failures import Failures
from tests.bench.balancer.scenarios.overhead import Overhead
from tests.bench.balancer.scenarios.port import Context, Scenario
from tests.bench.balancer.scenarios.tenants import Tenants
from tests.bench.balancer.session import Session
from tests.bench.processes import PROCESSOR_COUNT

_ROOT = Path(__file__).parents[3]
_NOT_BY_DEFAULT = ("bursts",)


def _scenarios() -> dict[str, Scenario]:
    all_of_them: tuple[Scenario, ...] = (
        *traffic.SCENARIOS,
        EqualHosts(),
        Failures(),
        Tenants(),
        Overhead(),
        Embeddings(),
    )
    return {scenario.name: scenario for scenario in all_of_them}


def _contenders(options: argparse.Namespace) -> dict[str, Contender]:
    """Lists those that take part; says of each that is not installed what to do."""
    taking_part = {}
    for contender in everyone(options.pannier_root, options.litellm):
        if options.contender and contender.name not in options.contender:
            continue
        if missing := contender.missing():
            print(f"LEFT OUT  {contender.name:<18} not installed: {missing}")
            continue
        taking_part[contender.name] = contender
        print(f"contender {contender.name:<18} {contender.rule}  {contender.version()}")
    return taking_part


def _parse(scenarios: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.balancer",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    option = parser.add_argument
    option("--scenario", action="append", choices=scenarios, help="only this one; repeatable")
    option("--contender", action="append", help="only this one; repeatable")
    option("--seeds", type=int, help="number of seeds; 5, or 1 with --quick")
    option("--first-seed", type=int, default=1, help="seed to begin with; to share them out")
    option("--quick", action="store_true", help="short traces and one seed, for development")
    option("--time-scale", type=float, default=10.0, help="how much faster than life")
    option("--out", type=Path, default=_ROOT / "bench-results", help="folder for the results")
    option("--litellm", type=Path, default=_ROOT / ".venv-litellm", help="venv with litellm[proxy]")
    option("--pannier-root", type=Path, default=_ROOT, help="source tree of the balancer measured")
    return parser.parse_args()


def _machine() -> str:
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return f"{PROCESSOR_COUNT} processors, load average {load}"


async def _measure(options: argparse.Namespace, scenarios: dict[str, Scenario]) -> None:
    folder = options.out / time.strftime("balancer-%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    session = Session(folder, options.time_scale)
    print(f"time x {options.time_scale:g}; seconds are the fleet's; {_machine()}")
    contenders = _contenders(options)
    check = await check_capacity(session)
    print(check)
    seed_count = options.seeds or (1 if options.quick else 5)
    seeds = range(options.first_seed, options.first_seed + seed_count)
    results: dict[str, object] = {
        "time_scale": options.time_scale,
        "quick": options.quick,
        "seeds": list(seeds),
        "capacity_check": str(check),
        "versions": {each.name: each.version() for each in contenders.values()},
    }
    context = Context(
        session=session, contenders=contenders, seeds=seeds, quick=options.quick, say=print
    )
    chosen = options.scenario or [name for name in scenarios if name not in _NOT_BY_DEFAULT]
    for name in chosen:
        scenario = scenarios[name]
        print(f"\n== {name}: {scenario.title} ({_machine()})")
        began = time.monotonic()
        findings = await scenario.measure(context)
        lines = [f"  {what}: {value}" for what, value in findings.lines.items()]
        shown = (*report.table(findings.runs), *lines, *report.verdict_lines(findings.verdicts))
        print(*shown, sep="\n")
        results[name] = report.as_json(findings)
        report.write_results(folder / "results.json", results)
        print(f"  {time.monotonic() - began:.0f} s; {_machine()}", flush=True)
    print(f"\nresults: {folder / 'results.json'}")


async def _until_told(options: argparse.Namespace, scenarios: dict[str, Scenario]) -> int:
    """Measures; on SIGINT or SIGTERM stops everything that was started and ends."""
    measuring = asyncio.create_task(_measure(options, scenarios))
    loop = asyncio.get_running_loop()

    def end() -> None:
        # Once: a second signal would cut short the stopping of what was started.
        if not measuring.cancelling():
            measuring.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    try:
        await measuring
    except asyncio.CancelledError:
        print("\nstopped before the end")
        return 130
    return 0


def main() -> int:
    """Runs the command line."""
    scenarios = _scenarios()
    return asyncio.run(_until_told(_parse(list(scenarios)), scenarios))


if __name__ == "__main__":
    raise SystemExit(main())
