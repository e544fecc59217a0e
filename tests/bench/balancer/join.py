"""Joins measurements that shared out the seeds, or the contenders, of a scenario and judges them.

python -m tests.bench.balancer --scenario mixed --first-seed 1 --seeds 1 --out one &
python -m tests.bench.balancer --scenario mixed --first-seed 2 --seeds 1 --out two; wait
python -m tests.bench.balancer.join --scenario mixed one two
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.bench.balancer import report
from tests.bench.balancer.contenders.everyone import everyone
from tests.bench.balancer.figures import Outcome, Summary
from tests.bench.balancer.scenarios.failures import Failures
from tests.bench.balancer.scenarios.port import Context, Joinable
from tests.bench.balancer.scenarios.traffic import EQUAL, SCENARIOS
from tests.bench.balancer.session import Run, Session

__all__ = ["main", "read_runs"]

_JOINABLE: dict[str, Joinable] = {each.name: each for each in (*SCENARIOS, EQUAL, Failures())}


def read_runs(results: Path, scenario: str) -> Iterator[Run]:
    """Reads the runs of a scenario that a measurement has written.

    Args:
        results: Its results.json.
        scenario: Name of the scenario.
    """
    written = json.loads(results.read_text()).get(scenario, {}).get("runs", [])
    for contender in dict.fromkeys(each["contender"] for each in written):
        figures = [each for each in written if each["contender"] == contender]
        folders = sorted(results.parent.glob(f"runs/*-{contender}/outcomes.json"))
        # The check of the capacity comes first, and has a folder too.
        for each, outcomes in zip(figures, folders[-len(figures) :], strict=True):
            yield _run(each, json.loads(outcomes.read_text())["outcomes"])


def _run(figures: dict[str, Any], written: list[dict[str, Any]]) -> Run:
    # JSON has neither; failures are named by texts that are no numbers.
    plain = {
        name: float(value) if value in ("inf", "nan") else value for name, value in figures.items()
    }
    summary = Summary(**{name: plain.pop(name) for name in Summary.__slots__})
    outcomes = sorted((Outcome(**each) for each in written), key=lambda each: each.at_seconds)
    # What the warm-up sent was written, and not counted.
    kept = outcomes[len(outcomes) - summary.request_count :]
    return Run(summary=summary, outcomes=tuple(kept), **plain)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.balancer.join",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--scenario", choices=list(_JOINABLE), required=True)
    parser.add_argument("--quick", action="store_true", help="they were measured so")
    parser.add_argument("folder", nargs="+", type=Path, help="what --out said")
    return parser.parse_args()


def _judged(scenario: Joinable, runs: list[Run], *, quick: bool) -> Sequence[str]:
    took_part = {run.contender for run in runs}
    contenders = {each.name: each for each in everyone(Path(), Path()) if each.name in took_part}
    context = Context(
        session=Session(Path(), 1.0),
        contenders=contenders,
        seeds=sorted({run.seed for run in runs}),
        quick=quick,
        say=print,
    )
    findings = scenario.conclude(runs, context)
    lines = [f"  {what}: {value}" for what, value in findings.lines.items()]
    return (*report.table(runs), *lines, *report.verdict_lines(findings.verdicts))


def main() -> int:
    """Runs the command line."""
    options = _parse()
    files = [file for folder in options.folder for file in sorted(folder.rglob("results.json"))]
    runs = [run for file in files for run in read_runs(file, options.scenario)]
    print(*_judged(_JOINABLE[options.scenario], runs, quick=options.quick), sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
