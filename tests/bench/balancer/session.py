"""One measured run: a cold fleet, a contender in front of it, a trace through it."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench import processes
from tests.bench.balancer.contenders.port import Contender, Contending
from tests.bench.balancer.figures import Outcome, Summary, percentile, summarise
from tests.bench.balancer.fleet import Fleet, Totals, counted_since, running_fleet
from tests.bench.balancer.reference import Host, ModelProfile
from tests.bench.balancer.traces import Request, write_trace

__all__ = ["Closed", "Plan", "Run", "Script", "Session", "machine_busy_seconds"]

# From the order to begin until the trace begins: the generator has to start and connect.
_LEAD_WALL_SECONDS = 2.0
_PATIENCE_SECONDS = 600.0

Script = Callable[[Fleet, Callable[[float], Awaitable[None]]], Awaitable[None]]
"""What befalls the fleet during a trace; is given the fleet and `wait_for(trace seconds)`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is sent to what.

    Attributes:
        hosts: The fleet.
        models: Models that every host has on disk.
        trace: The requests.
        seed: Seed of trace and texts.
        warm_up_seconds: Requests before this are sent and not counted.
        script: What befalls the fleet meanwhile.
    """

    hosts: Sequence[Host]
    models: Sequence[ModelProfile]
    trace: tuple[Request, ...]
    seed: int
    warm_up_seconds: float = 0.0
    script: Script | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What came of a plan.

    Attributes:
        contender: Who was measured.
        seed: Seed of the trace.
        summary: Figures of the requests after the warm-up.
        outcomes: These requests.
        totals: What the fleet counted after the warm-up.
        time_scale: Fleet seconds per wall second.
        wall_seconds: How long the trace took.
        contender_cpu_seconds: Processor time of the contender.
        cpu_per_thousand: The same per 1,000 requests.
        fleet_cpu_seconds: Processor time of the stand-ins.
        generator_cpu_seconds: Processor time of the load generator.
        machine_busy_ratio: Share of all processors' time that was used by anyone.
        lag_p99_seconds: How late the generator sent, fleet seconds.
    """

    contender: str
    seed: int
    summary: Summary
    outcomes: tuple[Outcome, ...]
    totals: Totals
    time_scale: float
    wall_seconds: float
    contender_cpu_seconds: float
    cpu_per_thousand: float
    fleet_cpu_seconds: float
    generator_cpu_seconds: float
    machine_busy_ratio: float
    lag_p99_seconds: float

    def as_json(self) -> dict[str, Any]:
        """Returns the run as a JSON object, without the single outcomes."""
        left_out = ("summary", "outcomes")
        fields = {name: getattr(self, name) for name in self.__slots__ if name not in left_out}
        return fields | self.summary.as_json()


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """What came of working through a trace.

    Attributes:
        outcomes: What became of each request, in the order in which they ended.
        wall_seconds: How long it took.
        contender_cpu_seconds: Processor time of the contender.
        resident_bytes: Memory of the contender, sampled every half second.
    """

    outcomes: tuple[Outcome, ...]
    wall_seconds: float
    contender_cpu_seconds: float
    resident_bytes: tuple[int, ...]


def machine_busy_seconds() -> float:
    """Returns the processor seconds used by everyone on this machine since it started."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) / processes.TICKS_PER_SECOND


@dataclass(slots=True)
class Session:
    """Runs plans, each in a folder of its own.

    Args:
        folder: For everything that the runs write.
        time_scale: Fleet seconds per wall second.
    """

    folder: Path
    time_scale: float
    _count: int = field(default=0, init=False)

    def new_folder(self, name: str) -> Path:
        """Makes a folder for one run."""
        self._count += 1
        folder = self.folder / "runs" / f"{self._count:03}-{name}"
        folder.mkdir(parents=True)
        return folder

    @asynccontextmanager
    async def in_front(
        self,
        contender: Contender,
        hosts: Sequence[Host],
        models: Sequence[ModelProfile],
        *,
        time_scale: float | None = None,
    ) -> AsyncIterator[tuple[Fleet, Contending, Path]]:
        """Runs a cold fleet with a contender in front of it."""
        folder = self.new_folder(contender.name)
        scale = min(time_scale or self.time_scale, contender.time_scale_limit)
        async with (
            running_fleet(hosts, models, folder, scale) as fleet,
            contender.start(fleet, folder) as contending,
        ):
            yield fleet, contending, folder

    async def run(self, contender: Contender, plan: Plan) -> Run:
        """Sends a plan's trace, open loop, to a contender in front of a cold fleet."""
        async with self.in_front(contender, plan.hosts, plan.models) as (fleet, contending, folder):
            cpu = _Meter(contending.pid)
            fleet_cpu, busy = fleet.cpu_seconds(), machine_busy_seconds()
            begin_at = time.time() + _LEAD_WALL_SECONDS
            async with asyncio.TaskGroup() as group:
                before = group.create_task(_totals_at(fleet, begin_at, plan.warm_up_seconds))
                script = group.create_task(_play(plan.script, fleet, begin_at))
                report = await self._generate(
                    plan,
                    [contending.target],
                    folder,
                    "--begin-at",
                    str(begin_at),
                    time_scale=fleet.time_scale,
                )
                await script
            wall = float(report["wall_seconds"])
            after = await fleet.totals()
            outcomes = tuple(Outcome(**each) for each in report["outcomes"])
            kept = tuple(each for each in outcomes if each.at_seconds >= plan.warm_up_seconds)
            used = cpu.seconds()
            return Run(
                contender=contender.name,
                seed=plan.seed,
                summary=summarise(kept),
                outcomes=kept,
                totals=counted_since(before.result(), after),
                time_scale=fleet.time_scale,
                wall_seconds=wall,
                contender_cpu_seconds=used,
                cpu_per_thousand=1000 * used / max(1, len(outcomes)),
                fleet_cpu_seconds=fleet.cpu_seconds() - fleet_cpu,
                generator_cpu_seconds=float(report["cpu_seconds"]),
                machine_busy_ratio=(machine_busy_seconds() - busy)
                / ((wall + _LEAD_WALL_SECONDS) * processes.PROCESSOR_COUNT),
                lag_p99_seconds=percentile([each.lag_seconds for each in outcomes], 0.99),
            )

    async def work_through(
        self,
        fleet: Fleet,
        contending: Contending,
        folder: Path,
        plan: Plan,
        *,
        workers: int,
        targets: Sequence[str] = (),
    ) -> Closed:
        """Works through a plan's trace, closed loop, in front of a fleet that runs already.

        Args:
            fleet: The fleet.
            contending: Whose processor time and memory are watched.
            folder: For the trace and what came of it.
            plan: The trace; hosts, models, warm-up and script have no meaning here.
            workers: Requests under way at a time.
            targets: Where each request goes, one after the other; the contender where empty.
        """
        cpu = _Meter(contending.pid)
        samples: list[int] = []
        sampling = asyncio.create_task(_sample(contending.pid, samples))
        try:
            report = await self._generate(
                plan,
                targets or [contending.target],
                folder,
                "--workers",
                str(workers),
                time_scale=fleet.time_scale,
            )
        finally:
            sampling.cancel()
        return Closed(
            outcomes=tuple(Outcome(**each) for each in report["outcomes"]),
            wall_seconds=float(report["wall_seconds"]),
            contender_cpu_seconds=cpu.seconds(),
            resident_bytes=tuple(samples),
        )

    async def _generate(
        self,
        plan: Plan,
        targets: Sequence[str],
        folder: Path,
        *arguments: str,
        time_scale: float,
    ) -> dict[str, Any]:
        """Runs the load generator to its end and reads what it wrote."""
        trace, out = folder / "trace.jsonl", folder / "outcomes.json"
        write_trace(trace, plan.trace)
        command = [
            *(sys.executable, "-m", "tests.bench.balancer.generator"),
            *("--trace", str(trace), "--out", str(out), "--seed", str(plan.seed)),
            *("--time-scale", str(time_scale), "--patience-seconds", str(_PATIENCE_SECONDS)),
            *(part for target in targets for part in ("--target", target)),
            *arguments,
        ]
        log = folder / "generator.log"
        async with processes.running("generator", command, log=log) as started:
            if await started.process.wait():
                raise processes.ProcessEnded(f"the load generator failed; see {log}")
        report: dict[str, Any] = json.loads(await asyncio.to_thread(out.read_text))
        return report


class _Meter:
    """Processor time of a process from now on; 0 where there is none."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self._before = self._total()

    def _total(self) -> float:
        return processes.cpu_seconds(self._pid) if self._pid else 0.0

    def seconds(self) -> float:
        return self._total() - self._before


async def _totals_at(fleet: Fleet, begin_at: float, seconds: float) -> list[Totals]:
    await _sleep_until(begin_at + seconds / fleet.time_scale)
    return await fleet.totals()


async def _play(script: Script | None, fleet: Fleet, begin_at: float) -> None:
    if script is None:
        return

    async def wait_for(seconds: float) -> None:
        await _sleep_until(begin_at + seconds / fleet.time_scale)

    await script(fleet, wait_for)


async def _sleep_until(at: float) -> None:
    await asyncio.sleep(max(0.0, at - time.time()))


async def _sample(pid: int | None, samples: list[int]) -> None:
    while pid:
        samples.append(processes.resident_bytes(pid))
        await asyncio.sleep(0.5)
