"""A plan is the same in every process: nothing in it hangs on the order of sets or hashes."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

from hypothesis import given, settings

from services.balancer.core.plan import plan
from services.balancer.core.snapshot import Snapshot
from tests.kit.fleets import fleets, queues, ties

EXAMPLES = 400


def planned(snapshot: Snapshot, queue, *, quick: bool) -> list[object]:
    """Returns what a plan says, in an order and a form that are the plan's own."""
    made = plan(snapshot, queue, ties(snapshot), quick=quick)
    return [
        [[each.demand.id, each.outcome.value, each.backend_id] for each in made.placements],
        [[each.backend_id, each.model_key, list(each.evicted_keys)] for each in made.loads],
    ]


def planned_elsewhere(file: Path, hash_seed: int) -> object:
    command = [sys.executable, "-m", "tests.unit.balancer.test_plan_repeated", str(file)]
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    return json.loads(done.stdout)


def test_a_plan_does_not_hang_on_the_process_that_makes_it(tmp_path: Path) -> None:
    drawn = []

    @settings(max_examples=EXAMPLES)
    @given(fleets(), queues())
    def draw(snapshot, queue) -> None:
        drawn.append((snapshot, queue))

    draw()
    file = tmp_path / "drawn"
    file.write_bytes(pickle.dumps(drawn))
    first, second, third = (planned_elsewhere(file, seed) for seed in (0, 1, 2))
    assert first == second == third
    assert any(placements for placements, _ in first)
    assert any(loads for _, loads in first)


if __name__ == "__main__":
    examples = pickle.loads(Path(sys.argv[1]).read_bytes())
    plans = [planned(*each, quick=quick) for each in examples for quick in (False, True)]
    sys.stdout.write(json.dumps(plans))
