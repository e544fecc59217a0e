import json
import math
from dataclasses import asdict

import pytest

from tests.bench.balancer import report
from tests.bench.balancer.figures import Outcome, summarise
from tests.bench.balancer.join import read_all, read_runs
from tests.bench.balancer.scenarios.port import Findings
from tests.bench.balancer.session import Run


def outcome(index: int, at_seconds: float, failure: str = "", kind: str = "chat") -> Outcome:
    return Outcome(
        index=index,
        kind=kind,
        at_seconds=at_seconds,
        lag_seconds=0.0,
        first_seconds=None if failure else 0.5,
        total_seconds=2.0,
        stall_seconds=0.1,
        token_count=10,
        message_count=10,
        failure=failure,
    )


def run(contender: str, seed: int, outcomes: tuple[Outcome, ...]) -> Run:
    return Run(
        contender=contender,
        seed=seed,
        summary=summarise(outcomes),
        outcomes=outcomes,
        totals={"loads": 2.0},
        time_scale=5.0,
        wall_seconds=100.0,
        contender_cpu_seconds=1.0,
        cpu_per_thousand=0.5,
        fleet_cpu_seconds=2.0,
        generator_cpu_seconds=3.0,
        machine_busy_ratio=0.4,
        lag_p99_seconds=math.inf,
    )


MEASURED = [
    run(contender, seed, kept)
    for seed, kept in {
        1: (outcome(1, 100.0), outcome(2, 110.0, kind="embed")),
        2: (outcome(1, 101.0, "http_504"), outcome(2, 102.0, kind="embed")),
    }.items()
    for contender in ("nginx", "nginx-tuned")
]
WARM_UP = outcome(0, 50.0, "http_504")


def write(folder, runs, *, quick=False):
    """Writes results as a measurement does, with runs of something else before and after."""
    others = (outcome(1, 103.0), outcome(2, 104.0), outcome(3, 105.0))
    folder.mkdir(parents=True, exist_ok=True)
    report.write_results(
        folder / "results.json", {"quick": quick, "mixed": report.as_json(Findings(runs=runs))}
    )
    written = [
        ("nginx", ()),
        ("nginx", others),
        *((each.contender, (*each.outcomes, WARM_UP)) for each in runs),
        ("nginx", others),
    ]
    for place, (contender, outcomes) in enumerate(written, start=1):
        its = folder / "runs" / f"{place:03}-{contender}"
        its.mkdir(parents=True)
        listed = [asdict(each) for each in outcomes]
        (its / "outcomes.json").write_text(json.dumps({"outcomes": listed}))
    return folder / "results.json"


def test_runs_are_read_as_they_were_measured(tmp_path):
    results = write(tmp_path, MEASURED)
    assert list(read_runs(results, "mixed")) == MEASURED
    assert list(read_runs(results, "equal")) == []


def test_runs_of_several_measurements_are_put_together(tmp_path):
    files = [write(tmp_path / str(each.seed) / each.contender, [each]) for each in MEASURED]
    assert read_all(files, "mixed") == (MEASURED, False)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "no runs of mixed"),
        ([(MEASURED[:2], False), (MEASURED[2:], True)], "--quick"),
        ([(MEASURED, False), (MEASURED[1:2], False)], "nginx-tuned with seed 1"),
    ],
)
def test_what_does_not_belong_together_is_refused(tmp_path, parts, message):
    files = [
        write(tmp_path / str(place), runs, quick=quick) for place, (runs, quick) in enumerate(parts)
    ]
    with pytest.raises(ValueError, match=message):
        read_all(files, "mixed")


def test_outcomes_that_are_not_those_counted_are_refused(tmp_path):
    results = write(tmp_path, MEASURED)
    for file in tmp_path.glob("runs/*-nginx-tuned/outcomes.json"):
        file.write_text(json.dumps({"outcomes": []}))
    with pytest.raises(ValueError, match="nginx-tuned"):
        list(read_runs(results, "mixed"))
