"""A run of `pannier load` from its checks to its exit status."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.local.state import StateFile, home_folder
from pannier.client import open_channel
from pannier.commands.connection import EXIT_FAILED, EXIT_UNREACHABLE, find_address
from pannier.commands.load_calls import Asker, AskOptions
from pannier.commands.load_checks import Services, find_problems, find_standins
from pannier.commands.load_faults import NotAStandin
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
    scenario, services = session.scenario, session.services
    state = StateFile(home_folder(os.environ)).read()
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
        )
        failed: list[str] = []
        try:
            await running.run(output, told=lambda text: _tell(output, text))
        except (NotAStandin, ProcessLookupError) as error:
            output.problem(str(error))
            failed.append(str(error))
        finally:
            # Also where the run was broken off: what could not be put right must be known.
            failed += _conclude(output, running, session)
        return EXIT_FAILED if failed else 0


def _tell(output: Output, text: str) -> None:
    """Says what happens: above the live view, or among the lines of progress."""
    if output.console.is_terminal:
        output.line(text)
    else:
        output.errors.print(text, markup=False, soft_wrap=True)


def _conclude(output: Output, running: Run, session: Session) -> list[str]:
    """Shows and writes the figures of a run, says why it has failed, and returns that."""
    elapsed, json_file = running.elapsed_seconds, session.json_file
    failed = [f"{each}; `pannier load --clear-faults` tries again" for each in running.problems]
    broken = [each.problem(running.tally, elapsed_seconds=elapsed) for each in session.thresholds]
    failed += [each for each in broken if each is not None]
    for problem in failed:
        output.problem(problem)
    if json_file != "-":
        show_summary(output, running.tally, elapsed=elapsed, seed=running.options.seed)
    if json_file:
        document = _document(running, failed)
        if json_file == "-":
            output.json(document)
        else:
            Path(json_file).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return failed


def _document(running: Run, failed: list[str]) -> dict[str, Any]:
    scenario, options = running.scenario, running.options
    return {
        "scenario": scenario.name,
        "planned_seconds": scenario.seconds,
        "elapsed_seconds": running.elapsed_seconds,
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
