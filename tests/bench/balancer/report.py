"""Tables for the console, and JSON for whoever wants to calculate with the figures."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.bench.balancer.figures import estimate
from tests.bench.balancer.scenarios.port import Findings, Verdict, figures_of
from tests.bench.balancer.session import Run

__all__ = ["as_json", "plain", "table", "verdict_lines", "write_results"]

# Fleet seconds by which the load generator may be late; beyond, figures are not to be trusted.
_LAG_LIMIT_SECONDS = 0.25
# Of a contender whose work is done by one thread, in processors.
_CORES_LIMIT = 0.8

_COLUMNS: tuple[tuple[str, int, Callable[[Run], float]], ...] = (
    ("failed %", 14, lambda run: 100 * run.summary.failed_ratio),
    ("TTFT p50", 14, lambda run: run.summary.first_p50),
    ("p95", 14, lambda run: run.summary.first_p95),
    ("p99", 14, lambda run: run.summary.first_p99),
    ("embed p99", 14, lambda run: run.summary.embed_p99),
    ("e2e p95", 14, lambda run: run.summary.total_p95),
    ("in SLO %", 14, lambda run: 100 * run.summary.good_ratio),
    ("loads", 12, lambda run: run.totals.get("loads", float("nan"))),
    ("CPU s/1000", 14, lambda run: run.cpu_per_thousand),
)


def table(runs: Sequence[Run]) -> list[str]:
    """Writes a row per contender: means over the seeds with their 95 % half-widths."""
    if not runs:
        return []
    lines = [f"  {'':<20}" + "".join(f"{name:>{width}}" for name, width, _ in _COLUMNS)]
    for name in dict.fromkeys(run.contender for run in runs):
        cells = (
            f"{estimate(figures_of(runs, name, figure))!s:>{width}}"
            for _, width, figure in _COLUMNS
        )
        lines.append(f"  {name:<20}" + "".join(cells))
    return lines + list(_cautions(runs))


def _cautions(runs: Sequence[Run]) -> Iterable[str]:
    """Says which runs this machine, rather than the fleet, may have slowed down."""
    for name in dict.fromkeys(run.contender for run in runs):
        kept = [run for run in runs if run.contender == name]
        busy = max(run.machine_busy_ratio for run in kept)
        cores = max(run.contender_cpu_seconds / run.wall_seconds for run in kept)
        lag = max(run.lag_p99_seconds for run in kept)
        late = "  <- THE MACHINE WAS THE LIMIT" if lag > _LAG_LIMIT_SECONDS else ""
        bound = "  <- ONE PROCESSOR WAS ITS LIMIT" if cores > _CORES_LIMIT else ""
        yield (
            f"  {name:<18} machine {busy:.0%} busy (everyone's processes), contender {cores:.2f} "
            f"cores, generator late by {lag:.3f} s (p99), time x {kept[0].time_scale:g}"
            f"{late}{bound}"
        )
        kinds: dict[str, int] = {}
        for run in kept:
            for kind, count in run.summary.failures.items():
                kinds[kind] = kinds.get(kind, 0) + count
        if kinds:
            listed = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
            yield f"  {'':<18} failures: {listed}"


def verdict_lines(verdicts: Sequence[Verdict]) -> list[str]:
    """Writes a line per goal: measured, met or missed."""
    words = {True: "MET", False: "MISSED", None: "not measured"}
    lines = []
    for each in verdicts:
        doubt = "" if each.certain or each.met is None else f" ({each.doubt})"
        lines.append(f"  {words[each.met]:<12} {each.goal}: {each.measured}{doubt}")
        if each.note:
            lines.append(f"  {'':<12} {each.note}")
    return lines


def as_json(findings: Findings) -> dict[str, Any]:
    """Returns findings as a JSON object."""
    return {
        "runs": [run.as_json() for run in findings.runs],
        "figures": {name: asdict(value) for name, value in findings.lines.items()},
        "verdicts": [verdict.as_json() for verdict in findings.verdicts],
    }


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Writes results."""
    path.write_text(json.dumps(plain(results), indent=1) + "\n")


def plain(value: Any) -> Any:
    """Returns a value for JSON: infinite and undefined figures become texts."""
    if isinstance(value, dict):
        return {name: plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))):
        return str(value)
    return value
