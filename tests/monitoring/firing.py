"""Shows each alert firing: runs scenarios against a real stack that a real Prometheus watches.

`python -m tests.monitoring.firing [--scenario NAME ...]`. Rules are those of deploy/prometheus with
all durations divided, and scenarios are run as much faster. One after the other: a scenario by
`pannier load`, in a process of its own, as a user runs it; then the wait for its alerts, and for
their end once nothing goes wrong any more. Takes some two minutes for each.
"""

import argparse
import asyncio
import itertools
import os
import shlex
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from deploy.local.stack import stop_stack
from pannier.commands.connection import EXIT_INTERRUPTED
from pannier.commands.load_options import find_scenario, list_scenarios
from pannier.commands.output import Output
from pannier.commands.stack import cancelled_by_signals
from pannier.load.scenario import Scenario
from tests.kit.ports import free_port
from tests.kit.prometheus import (
    DEPLOY,
    Server,
    derived,
    prometheus_config,
    run_tool,
    running_prometheus,
)
from tests.monitoring.alert_log import AlertLog, AlertTimes
from tests.monitoring.compression import compressed_rules

__all__ = ["Shown", "run_all"]

ROOT = Path(__file__).resolve().parents[2]

_RULES = DEPLOY / "prometheus" / "rules"
_SERVICES = ("rag", "cache", "balancer")
# How much faster at most, and how long a scenario takes at least, where it does not say: services
# do not hurry.
_MOST_FACTOR = 30.0
_LEAST_SECONDS = 40.0
_UP_SECONDS = 600.0
_READY_SECONDS = 60.0
_WELL_SECONDS = 60.0
_QUIET_SCRAPES = 5
_MARGIN_SECONDS = 30.0
# Answers that are under way may take until their own deadline.
_DRAIN_SECONDS = 150.0
_OVER_SECONDS = 420.0
_STOP_SECONDS = 20.0
_COMMAND = "pannier "
_ALWAYS = frozenset({"Watchdog"})


class NotWellError(Exception):
    """A backend is still out, or a cache full, because of an earlier scenario."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What became of a scenario.

    Attributes:
        scenario: The scenario.
        factor: How many times faster it was run.
        seconds: How long the load ran.
        status: What the load ended with.
        alerts: Alerts that it is to show.
        beside: Alerts that fired as well.
    """

    scenario: Scenario
    factor: float
    seconds: float
    status: int
    alerts: Mapping[str, AlertTimes]
    beside: Sequence[str] = field(default_factory=tuple)

    @property
    def complete(self) -> bool:
        """Whether all alerts fired and ended, and the load had nothing to complain about."""
        fired = all(each.firing is not None for each in self.alerts.values())
        ended = all(each.ended is not None for each in self.alerts.values())
        return fired and (ended or not _ends_soon(self.scenario)) and not self.status


async def run_all(scenarios: Sequence[Scenario], folder: Path, output: Output) -> list[Shown]:
    """Runs scenarios; those that need the same settings share a stack.

    Args:
        scenarios: What to run.
        folder: An empty folder, for state, logs and metrics.
        output: Where progress is written.
    """
    shown: list[Shown] = []
    ordered = sorted(scenarios, key=_settings_key)
    starts = itertools.count()
    for _, group in groupby(ordered, key=_settings_key):
        left = list(group)
        while left:
            async with _stack(folder, left[0], next(starts)) as metrics:
                shown += await _show_all(left, folder, metrics, output)
    return shown


async def _show_all(
    left: list[Scenario], folder: Path, metrics: Mapping[str, str], output: Output
) -> list[Shown]:
    """Runs scenarios until none is left, or until the stack has not got over an earlier one."""
    shown: list[Shown] = []
    while left:
        try:
            one = await _show(left[0], folder, metrics, new=not shown)
        except NotWellError:
            if not shown:
                raise
            # A backend that was put out again and again stays out for long, and a cache that is
            # full stays so: begin anew.
            return shown
        del left[0]
        output.table(_COLUMNS, list(_rows(one)))
        shown.append(one)
    return shown


def _ends_soon(scenario: Scenario) -> bool:
    """Whether alerts end with the run, or by a command; else its words say when they do."""
    return not scenario.afterwards or scenario.afterwards.startswith(_COMMAND)


def _settings_key(scenario: Scenario) -> str:
    # The plain stack comes first, since that is where documents are taken in.
    settings = sorted(scenario.settings.items())
    return f"{len(settings)} {settings} {scenario.needs.standins}"


@asynccontextmanager
async def _stack(folder: Path, scenario: Scenario, number: int) -> AsyncIterator[dict[str, str]]:
    """Runs a stack with the documents of the demo, as `make up` does, while the context is open.

    Yields:
        Where the services show their metrics.
    """
    home = folder / "stack"
    metrics = {name: f"127.0.0.1:{free_port()}" for name in _SERVICES}
    environment = {
        **_plain_environment(folder),
        **{f"PANNIER_{name.upper()}_HTTP_ADDRESS": each for name, each in metrics.items()},
        # Not where a user's commands look for a stack of their own.
        **{
            f"PANNIER_{name.upper()}_GRPC_ADDRESS": f"127.0.0.1:{free_port()}" for name in _SERVICES
        },
        **scenario.settings,
    }
    async with AsyncExitStack() as stack:
        for each in scenario.needs.standins:
            profile = find_scenario(scenario.name)[1].parent / each.profile
            standin = ("-m", "services.standin", "--port", str(each.port), "--profile")
            log = folder / f"standin-{each.port}.log"
            await stack.enter_async_context(
                _process((*standin, str(profile)), environment, log, _STOP_SECONDS)
            )
        try:
            up = ("-m", "deploy.local.demo", "--stay")
            status = await _run(up, environment, folder / f"up-{number}.log", _UP_SECONDS)
            if status:
                raise RuntimeError(f"the stack did not start; see {folder / f'up-{number}.log'}")
            yield metrics
        finally:
            await stop_stack(home, lambda _: None)


def _plain_environment(folder: Path) -> dict[str, str]:
    kept = {name: each for name, each in os.environ.items() if not name.startswith("PANNIER_")}
    return {**kept, "PANNIER_HOME": str(folder / "stack")}


def _shortest_seconds(scenario: Scenario) -> float:
    """Returns how long a scenario takes at least: what it says itself, where it does."""
    least = scenario.needs.least_seconds or max(_LEAST_SECONDS, scenario.seconds / _MOST_FACTOR)
    return min(scenario.seconds, least)


async def _show(
    scenario: Scenario, folder: Path, metrics: Mapping[str, str], *, new: bool
) -> Shown:
    """Runs a scenario under a Prometheus of its own.

    Args:
        scenario: The scenario.
        folder: Where files go, in a folder of its name.
        metrics: Where the services show their metrics.
        new: Whether nothing has gone wrong on the stack yet.

    Raises:
        NotWellError: Something still does.
    """
    seconds = _shortest_seconds(scenario)
    factor = scenario.seconds / seconds
    own = folder / scenario.name
    config = _compress(own, factor, metrics)
    command = ("-m", "pannier.commands.main", "load", "--scenario", scenario.name)
    environment = _plain_environment(folder)
    async with running_prometheus(config, own) as prometheus:
        await _become_ready(prometheus, () if new else scenario.shows)
        log = AlertLog(prometheus)
        watching = asyncio.create_task(log.run())
        try:
            status, took = await _load(
                (*command, "--time-scale", f"{1 / factor}"),
                environment,
                own / "load.log",
                seconds + _DRAIN_SECONDS,
            )
            fired = await log.wait_until_fired(scenario.shows, timeout_seconds=_MARGIN_SECONDS)
            if scenario.afterwards.startswith(_COMMAND):
                words = shlex.split(scenario.afterwards)[1:]
                afterwards = ("-m", "pannier.commands.main", *words)
                await _run(afterwards, environment, own / "afterwards.log", _DRAIN_SECONDS)
            if fired and _ends_soon(scenario):
                await log.wait_until_over(scenario.shows, timeout_seconds=_OVER_SECONDS)
        finally:
            watching.cancel()
    beside = [name for name, each in log.alerts.items() if each.firing is not None]
    return Shown(
        scenario=scenario,
        factor=factor,
        seconds=took,
        status=status,
        alerts={name: log.alerts.get(name, AlertTimes()) for name in scenario.shows},
        beside=sorted(set(beside) - set(scenario.shows) - _ALWAYS),
    )


def _compress(folder: Path, factor: float, metrics: Mapping[str, str]) -> str:
    """Writes the rules for a Prometheus, and returns its configuration."""
    rules = folder / "rules"
    rules.mkdir(parents=True, exist_ok=True)
    for path in sorted(_RULES.glob("*.yaml")):
        (rules / path.name).write_text(compressed_rules(path.read_text(), factor))
    checked = run_tool("promtool", "check", "rules", *sorted(rules.glob("*.yaml")))
    if checked.returncode:
        raise RuntimeError(checked.stdout + checked.stderr)
    config = prometheus_config({name: [each] for name, each in metrics.items()})
    return derived(config, {str(_RULES / "*.yaml"): str(rules / "*.yaml")})


async def _become_ready(prometheus: Server, quiet: Collection[str]) -> None:
    """Waits until all is well, and some alerts are not there."""
    for job in _SERVICES:
        await prometheus.wait_for(f'up{{job="{job}"}} == 1', timeout_seconds=_READY_SECONDS)
    conditions = ["min(balancer_backend_healthy) == 1"]
    if quiet:
        # Only after some scrapes: before, no rule has been looked at yet.
        watched = f'count_over_time(up{{job="{_SERVICES[0]}"}}[1m]) >= {_QUIET_SCRAPES}'
        conditions.append(f'absent(ALERTS{{alertname=~"{"|".join(quiet)}"}}) and on () ({watched})')
    try:
        for condition in conditions:
            await prometheus.wait_for(condition, timeout_seconds=_WELL_SECONDS)
    except TimeoutError:
        raise NotWellError(f"not within {_WELL_SECONDS:.0f} s: {condition}") from None


async def _load(
    arguments: Sequence[str], environment: Mapping[str, str], log: Path, seconds: float
) -> tuple[int, float]:
    """Runs a load to its end; returns its exit status and how long it took."""
    began = time.monotonic()
    status = await _run(arguments, environment, log, seconds)
    return status, time.monotonic() - began


async def _run(
    arguments: Sequence[str], environment: Mapping[str, str], log: Path, seconds: float
) -> int:
    """Runs a Python program to its end, and returns its exit status.

    Raises:
        TimeoutError: It took too long, and was stopped.
    """
    async with _process(arguments, environment, log, _STOP_SECONDS) as process:
        async with asyncio.timeout(seconds):
            return await process.wait()


@asynccontextmanager
async def _process(
    arguments: Sequence[str], environment: Mapping[str, str], log: Path, stop_seconds: float
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Runs a Python program while the context is open."""
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, env=environment, cwd=ROOT, stdout=file, stderr=file
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(stop_seconds):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


_COLUMNS = (
    *("alert", "scenario", ">faster", ">pending", ">firing", ">that is", ">over", "beside"),
)


def _rows(shown: Shown) -> Iterator[tuple[str, ...]]:
    """Writes what became of a scenario: seconds as they were, and minutes at real speed."""
    beside = ", ".join(shown.beside) or "-"
    problem = f" (load ended with {shown.status})" if shown.status else ""
    scenario, factor = f"{shown.scenario.name}{problem}", f"{shown.factor:.1f}"
    if not shown.alerts:
        yield ("-", scenario, factor, "-", "-", "-", "-", beside)
    for name, times in shown.alerts.items():
        firing = times.firing
        over = "later" if not _ends_soon(shown.scenario) else "never"
        if times.ended is not None:
            over = f"{times.ended - shown.seconds:+.0f} s"
        yield (
            *(name, scenario, factor),
            *(_seconds(times.pending), _seconds(firing)),
            "-" if firing is None else f"{firing * shown.factor / 60:.1f} min",
            over,
            beside,
        )


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.0f} s"


async def _main(names: Sequence[str], folder: Path) -> int:
    output = Output()
    chosen = [find_scenario(each)[0] for each in names]
    scenarios = chosen or [each for each, _ in list_scenarios()]
    output.line(f"logs and rules are in {folder}")
    with cancelled_by_signals():
        shown = await run_all(scenarios, folder, output)
    output.line()
    output.table(_COLUMNS, sorted(row for each in shown for row in _rows(each)))
    failed = [each.scenario.name for each in shown if not each.complete]
    for name in failed:
        output.problem(f"{name} did not show what it is to show")
    return 1 if failed else 0


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.monitoring.firing", description=__doc__)
    parser.add_argument(
        "--scenario", action="append", default=[], help="name of one; repeatable; default: all"
    )
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="pannier-firing-"))
    # PostgreSQL may run as another user.
    folder.chmod(0o755)
    try:
        return asyncio.run(_main(options.scenario, folder))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    raise SystemExit(main())
