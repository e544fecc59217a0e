"""Joins measurements that shared out the seeds, or the contenders, of a scenario and judges them.

python -m tests.bench.balancer --scenario mixed --first-seed 1 --seeds 1 --out one &
python -m tests.bench.balancer --scenario mixed --first-seed 2 --seeds 1 --out two; wait
python -m tests.bench.balancer.join --scenario mixed one two
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.bench.balancer import report
from tests.bench.balancer.contenders.everyone import everyone
from tests.bench.balancer.figures import Outcome, Summary, summarise
from tests.bench.balancer.scenarios.failures import Failures
from tests.bench.balancer.scenarios.port import Context, Joinable
from tests.bench.balancer.scenarios.traffic import EQUAL, SCENARIOS
from tests.bench.balancer.session import Run, Session

__all__ = ["main", "read_all", "read_runs"]

_JOINABLE: dict[str, Joinable] = {each.name: each for each in (*SCENARIOS, EQUAL, Failures())}


def read_runs(results: Path, scenario: str) -> Iterator[Run]:
    """Reads the runs of a scenario that a measurement has written.

    Args:
        results: Its results.json.
        scenario: Name of the scenario.

    Raises:
        ValueError: The outcomes of a run are not beside it.
    """
    for figures in json.loads(results.read_text()).get(scenario, {}).get("runs", []):
        folders = sorted(results.parent.glob(f"runs/*-{figures['contender']}/outcomes.json"))
        found = (_outcomes(file, figures) for file in folders)
        kept = next((each for each in found if each is not None), None)
        if kept is None:
            raise ValueError(f"{results}: no outcomes of {figures['contender']} are those counted")
        yield _run(figures, kept)


def _outcomes(file: Path, figures: dict[str, Any]) -> tuple[Outcome, ...] | None:
    """Reads what was counted of a run; None where the file is of another one."""
    count = figures["request_count"]
    written = json.loads(file.read_text())["outcomes"]
    outcomes = sorted((Outcome(**each) for each in written), key=lambda each: each.at_seconds)
    # What the warm-up sent was written, and not counted.
    kept = tuple(outcomes[max(0, len(outcomes) - count) :])
    summary = report.plain(summarise(kept).as_json())
    return kept if all(figures[name] == value for name, value in summary.items()) else None


def _run(figures: dict[str, Any], kept: tuple[Outcome, ...]) -> Run:
    # JSON has neither; nothing else that was counted has such a name.
    plain = {
        name: float(value) if value in ("inf", "nan") else value
        for name, value in figures.items()
        if name not in Summary.__slots__
    }
    return Run(summary=summarise(kept), outcomes=kept, **plain)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.balancer.join",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--scenario", choices=list(_JOINABLE), required=True)
    parser.add_argument("folder", nargs="+", type=Path, help="what --out said")
    return parser.parse_args()


def read_all(files: Sequence[Path], scenario: str) -> tuple[list[Run], bool]:
    """Reads the runs of several measurements, and whether these were quick ones.

    Raises:
        ValueError: They do not belong together, or have no such runs.
    """
    runs = [run for file in files for run in read_runs(file, scenario)]
    if not runs:
        raise ValueError(f"no runs of {scenario} in any results.json there")
    quick = {bool(json.loads(file.read_text())["quick"]) for file in files}
    if len(quick) > 1:
        raise ValueError("some were measured with --quick, some without")
    measured = Counter((run.contender, run.seed) for run in runs)
    if twice := [f"{name} with seed {seed}" for (name, seed), n in measured.items() if n > 1]:
        raise ValueError(f"measured more than once: {', '.join(twice)}")
    return runs, quick.pop()


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
    try:
        runs, quick = read_all(files, options.scenario)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(*_judged(_JOINABLE[options.scenario], runs, quick=quick), sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
