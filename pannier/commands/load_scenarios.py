"""Shows scenarios, and undoes what they have left behind."""

import asyncio
import os
from pathlib import Path

from deploy.local.state import StateFile, home_folder
from pannier.commands.connection import EXIT_FAILED
from pannier.commands.formatting import format_seconds
from pannier.commands.load_checks import Services, find_standins
from pannier.commands.load_faults import resume, undo_all
from pannier.commands.load_options import list_scenarios
from pannier.commands.output import Output
from pannier.load.scenario import Scenario

__all__ = ["clear_all_faults", "show_list", "show_scenario"]


async def clear_all_faults(output: Output, services: Services, given: tuple[str, ...]) -> int:
    """Continues the processes of the local stack and frees all stand-ins."""
    state = StateFile(home_folder(os.environ)).read()
    continued = 0 if state is None else resume(state.processes)
    output.line(f"{continued} processes of the local stack run.")
    standins, _ = await find_standins(services, given)
    problems = await asyncio.to_thread(undo_all, standins)
    for problem in problems:
        output.problem(problem)
    output.line(f"{len(standins) - len(problems)} stand-ins have no faults.")
    return EXIT_FAILED if problems else 0


def show_list() -> None:
    """Shows the scenarios that come along."""
    output = Output()
    output.table(
        ("scenario", "shows", ">takes", ">fires after", "about"),
        [
            (
                each.name,
                ", ".join(each.shows) or "-",
                format_seconds(each.seconds),
                format_seconds(each.fires_after_seconds) if each.shows else "-",
                each.about,
            )
            for each, _ in list_scenarios()
        ],
    )


def show_scenario(scenario: Scenario, path: Path) -> None:
    """Shows what happens in a scenario, and what it needs."""
    output = Output()
    output.line(f"{scenario.name}: {scenario.about}")
    output.line(f"from {path}")
    if scenario.shows:
        after = format_seconds(scenario.fires_after_seconds)
        output.line(f"shows {', '.join(scenario.shows)} after {after}")
    for name, value in scenario.settings.items():
        output.line(f"needs {name}={value}")
    if scenario.needs.health_interval_seconds:
        output.notice("Whether the balancer has that setting cannot be asked; see to it.")
    for standin in scenario.needs.standins:
        profile = path.parent / standin.profile
        output.line(f"needs python -m services.standin --port {standin.port} --profile {profile}")
    if scenario.needs.least_seconds:
        least = format_seconds(scenario.needs.least_seconds)
        output.line(f"shows nothing in less than {least}, whatever the time scale")
    if scenario.afterwards:
        output.line(f"afterwards: {scenario.afterwards}")
    for phase in scenario.phases:
        stage = phase.stage
        steady = stage.start_rate == stage.end_rate
        rate = f"{stage.start_rate:g}" if steady else f"{stage.start_rate:g} to {stage.end_rate:g}"
        output.line(f"  {phase.name}: {format_seconds(stage.seconds)} at {rate}/s")
        for each in phase.happenings():
            output.line(f"    {each}")
