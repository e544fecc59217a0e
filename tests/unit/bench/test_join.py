import json
import math
from dataclasses import asdict

from tests.bench.balancer import report
from tests.bench.balancer.figures import Outcome, summarise
from tests.bench.balancer.join import read_runs
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


def test_runs_are_read_as_they_were_measured(tmp_path):
    warm_up = outcome(0, 50.0, "http_504")
    measured = {
        1: (outcome(1, 100.0), outcome(2, 110.0, kind="embed")),
        2: (outcome(1, 101.0, "http_504"), outcome(2, 102.0, kind="embed")),
    }
    runs = [
        run(contender, seed, kept)
        for seed, kept in measured.items()
        for contender in ("nginx", "nginx-tuned")
    ]
    report.write_results(
        tmp_path / "results.json", {"seeds": [1, 2], "mixed": report.as_json(Findings(runs=runs))}
    )
    check = tmp_path / "runs" / "001-nginx"
    for folder, kept in [
        (check, ()),
        *(
            (tmp_path / "runs" / f"{place:03}-{each.contender}", each.outcomes)
            for place, each in enumerate(runs, start=2)
        ),
    ]:
        folder.mkdir(parents=True)
        written = [asdict(each) for each in (*kept, warm_up)]
        (folder / "outcomes.json").write_text(json.dumps({"outcomes": written}))

    read = list(read_runs(tmp_path / "results.json", "mixed"))

    assert sorted(read, key=lambda each: (each.seed, each.contender)) == runs
    assert list(read_runs(tmp_path / "results.json", "equal")) == []
