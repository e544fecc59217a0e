"""A run of `pannier load` from its checks to its exit status."""

import os
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.local.state import StateFile, home_folder
from pannier.client import open_channel
from pannier.commands.connection import EXIT_FAILED, EXIT_UNREACHABLE, find_address
from pannier.commands.load_calls import Asker, AskOptions
from pannier.commands.load_checks import Services, find_problems, find_standins
from pannier.commands.load_deeds import Deeds
from pannier.commands.load_faults import NotAStandin
from pannier.commands.load_files import FaultsOrdered, faults_to_ourselves, write_figures
from pannier.commands.load_run import Questions, Run, RunOptions
from pannier.commands.load_view import show_summary
from pannier.commands.output import Output
from pannier.load.scenario import Scenario
from pannier.load.thresholds import Threshold

__all__ = ["Session", "run_session"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What the command line has asked for.

    Attributes:
        scenario: What is run.
        questions: Questions by the name that phases use.
        options: How it is run.
        how: How questions are asked.
        services: Where the services are.
        standins: Backends that are to take orders; empty for all.
        connections: How many connections questions take in turn.
        thresholds: Conditions under which the run has failed.
        json_file: Where all figures go as JSON; `-` for standard output, empty for nowhere.
    """

    scenario: Scenario
    questions: Mapping[str, Questions]
    options: RunOptions
    how: AskOptions
    services: Services
    standins: tuple[str, ...]
    connections: int
    thresholds: Sequence[Threshold]
    json_file: str


async def run_session(output: Output, session: Session) -> int:
    """Checks, runs, shows and writes; returns the exit status."""
    home = home_folder(os.environ)
    try:
        with faults_to_ourselves(home) if session.scenario.faults else nullcontext():
            return await _run_checked(output, session, home)
    except FaultsOrdered as error:
        output.problem(str(error))
        return EXIT_UNREACHABLE


async def _run_checked(output: Output, session: Session, home: Path) -> int:
    scenario, services = session.scenario, session.services
    state = StateFile(home).read()
    processes = {} if state is None else {each.name: each for each in state.processes}
    problems = await find_problems(
        scenario, services, collection=session.how.collection, processes=processes
    )
    able: list[str] = []
    if scenario.needs_standins and not problems:
        able, problems = await find_standins(services, session.standins)
    if problems:
        for problem in problems:
            output.problem(problem)
        return EXIT_UNREACHABLE
    address = find_address("rag", services.rag, os.environ)
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(open_channel(address))
            for _ in range(session.connections)
        ]
        running = Run(
            scenario=scenario,
            questions=session.questions,
            options=session.options,
            standins=able,
            processes=processes,
            asker=Asker(channels, session.how),
            deeds=Deeds(
                services=services,
                tenant=next(iter(scenario.phases[0].mix.tenants)),
                told=lambda text: _tell(output, text),
            ),
        )
        failed: list[str] = []
        try:
            await running.run(output, told=lambda text: _tell(output, text))
        except (NotAStandin, ProcessLookupError) as error:
            failed.append(str(error))
        finally:
            # Also where the run was broken off: what could not be put right must be known.
            failed = _conclude(output, running, session, failed)
        return EXIT_FAILED if failed else 0


def _tell(output: Output, text: str) -> None:
    """Says what happens: above the live view, or among the lines of progress."""
    if output.console.is_terminal:
        output.line(text)
    else:
        output.errors.print(text, markup=False, soft_wrap=True)


def _conclude(output: Output, running: Run, session: Session, failed: Sequence[str]) -> list[str]:
    """Shows and writes the figures of a run, says why it has failed, and returns that."""
    json_file, within = session.json_file, running.answered_within_seconds
    broken = [each.problem(running.tally, answering_seconds=within) for each in session.thresholds]
    failed = [*failed, *running.problems, *(each for each in broken if each is not None)]
    for problem in failed:
        output.problem(problem)
    if json_file != "-":
        show_summary(
            output,
            running.tally,
            elapsed=running.elapsed_seconds,
            answering=within,
            seed=running.options.seed,
        )
    if json_file == "-":
        output.json(_document(running, failed))
    elif json_file:
        try:
            write_figures(Path(json_file), _document(running, failed))
        except OSError as error:
            output.problem(f"figures could not be written: {error}")
            failed.append(str(error))
    return failed


def _document(running: Run, failed: Sequence[str]) -> dict[str, Any]:
    scenario, options = running.scenario, running.options
    return {
        "scenario": scenario.name,
        "planned_seconds": scenario.seconds,
        "elapsed_seconds": running.elapsed_seconds,
        "answered_within_seconds": running.answered_within_seconds,
        "broken_off": running.broken_off,
        "seed": options.seed,
        "poisson": options.poisson,
        "max_in_flight": options.max_in_flight,
        "phases": [
            {
                "name": each.name,
                "seconds": each.stage.seconds,
                "start_rate": each.stage.start_rate,
                "end_rate": each.stage.end_rate,
                "faults": [fault.describe() for fault in each.faults],
            }
            for each in scenario.phases
        ],
        **running.tally.document(),
        "failed": failed,
    }
