"""Simulates and prints a table: `python -m tests.bench.simulator --rho 0.6 --seeds 5`."""

import argparse

from tests.bench.balancer.figures import estimate, percentile
from tests.bench.simulator.engine import Result
from tests.bench.simulator.scenarios import QUIET, RULES, SCENARIOS, run

_SLO_SECONDS = 5.0
_WARM_UP_SECONDS = 60.0
_COLUMNS = ("p50 s", "p95 s", "p99 s", "end p95 s", "within 5 s %", "loads")


def figures(result: Result) -> tuple[float, ...]:
    """Returns the columns of the table."""
    first = sorted(result.first_seconds(_WARM_UP_SECONDS))
    total = sorted(result.total_seconds(_WARM_UP_SECONDS))
    within = sum(each <= _SLO_SECONDS for each in first) / len(first)
    quantiles = [percentile(first, share) for share in (0.5, 0.95, 0.99)]
    return (*quantiles, percentile(total, 0.95), 100.0 * within, float(result.load_count))


def main() -> None:
    """Runs what the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.simulator")
    parser.add_argument("--rho", type=float, default=0.6, help="work asked for per work possible")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8000.0, help="length of each trace")
    parser.add_argument("--scenario", choices=SCENARIOS, action="append")
    parser.add_argument("--rule", choices=RULES, action="append")
    parser.add_argument("--each", action="store_true", help="a row per seed as well")
    arguments = parser.parse_args()
    for name in arguments.scenario or ("mixed", "uneven", "equal"):
        scenario = SCENARIOS[name]
        load_ratio = scenario.load_ratio or arguments.rho
        print(f"\n{name}: {scenario.title}, load {load_ratio:.2f}, time to first token")
        print(f"{'':<20}" + "".join(f"{column:>18}" for column in _COLUMNS))
        for rule in arguments.rule or RULES:
            rows = []
            for seed in range(1, arguments.seeds + 1):
                result = run(
                    scenario, rule, load_ratio=load_ratio, seconds=arguments.seconds, seed=seed
                )
                if scenario.flood_ratio:
                    result = result.of_tenant(QUIET)
                rows.append(figures(result))
                if arguments.each:
                    cells = "".join(f"{value:>18.2f}" for value in rows[-1])
                    print(f"{f'  seed {seed}':<20}{cells}")
            estimates = [estimate(column) for column in zip(*rows, strict=True)]
            print(f"{rule:<20}" + "".join(f"{each!s:>18}" for each in estimates))


if __name__ == "__main__":
    main()
