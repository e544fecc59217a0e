"""Starts and stops the stack of a state folder."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from deploy.local.component import Report
from deploy.local.plan import plan_stack
from deploy.local.state import AlreadyUp, StackState, StateFile
from deploy.local.supervisor import Supervisor

__all__ = ["start_stack", "stop_stack"]


async def start_stack(home: Path, environment: Mapping[str, str], report: Report) -> Supervisor:
    """Starts the stack; its processes outlive the caller.

    A start that fails or is cancelled leaves nothing running. What is left of an earlier stack
    that did not end in order is stopped first.

    Args:
        home: The state folder.
        environment: The user's variables.
        report: Receives every step.

    Raises:
        AlreadyUp: The stack runs.
        FolderInUse: Another command is starting or stopping it.
        StartFailed: A component did not start.
        OSError: A part has no program, or a folder cannot be made.
    """
    state_file = StateFile(home)
    with state_file.exclusive():
        earlier = state_file.read()
        if earlier is not None:
            if earlier.ready and len(earlier.alive()) == len(earlier.processes):
                raise AlreadyUp(earlier)
            await Supervisor(state_file, earlier).stop(report)
        plan = await plan_stack(home, environment)
        state = StackState(addresses=plan.addresses, notes=plan.notes)
        supervisor = Supervisor(state_file, state)
        try:
            await supervisor.start(plan.components, report)
        except BaseException:
            await supervisor.stop(report)
            raise
    return supervisor


async def stop_stack(home: Path, report: Report) -> int:
    """Stops the stack of a folder.

    Args:
        home: The state folder.
        report: Receives every step.

    Returns:
        How many processes were running.

    Raises:
        FolderInUse: Another command is starting or stopping it.
    """
    state_file = StateFile(home)
    if not await asyncio.to_thread(state_file.path.exists):
        return 0
    with state_file.exclusive():
        state = state_file.read()
        if state is None:
            return 0
        running = len(state.alive())
        await Supervisor(state_file, state).stop(report)
    return running
