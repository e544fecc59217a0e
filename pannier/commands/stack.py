"""`pannier up`, `pannier down`, `pannier status`: the embedded stack."""

import asyncio
import importlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.local.component import NotReady, Progress, Report, Step
from deploy.local.processes import is_alive, resident_bytes
from deploy.local.state import (
    AlreadyUp,
    FolderInUse,
    ProcessRecord,
    StackState,
    StateFile,
    home_folder,
)
from deploy.local.supervisor import StartFailed
from pannier.commands.connection import EXIT_FAILED, JsonOption, run
from pannier.commands.formatting import format_bytes, format_seconds, shorten
from pannier.commands.output import Output

if TYPE_CHECKING:
    from deploy.local.supervisor import Supervisor

__all__ = ["cancelled_by_signals", "down", "show_stack", "show_steps", "status", "up"]


_SPINNER_CHARACTERS = 60


class DemoExtraMissing(Exception):
    """The packages of the embedded stack are not installed."""


def up(
    *,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay until Ctrl-C, then stop everything.")
    ] = False,
) -> None:
    """Start the embedded stack: stores, backends, trace store and the three services."""

    async def main(output: Output) -> int:
        with cancelled_by_signals():
            try:
                return await _up(output, home_folder(os.environ), foreground=foreground)
            except (DemoExtraMissing, StartFailed, FolderInUse, OSError) as error:
                output.problem(str(error))
                return EXIT_FAILED

    run(main)


async def _up(output: Output, home: Path, *, foreground: bool) -> int:
    stack = _load("deploy.local.stack")
    started = time.monotonic()
    try:
        with show_steps(output) as report:
            supervisor = await stack.start_stack(home, os.environ, report)
    except AlreadyUp as error:
        output.line(f"The stack in {home} is already up.")
        show_stack(output, error.state)
        return 0
    output.line(f"The stack is up after {format_seconds(time.monotonic() - started)}.")
    show_stack(output, supervisor.state)
    return await _stay(output, home, supervisor) if foreground else 0


def _load(module: str) -> Any:
    """Imports what needs packages that other commands do without."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise DemoExtraMissing(
            f"The embedded stack needs more packages ({error.name} is missing): "
            "pip install 'pannier[demo]'"
        ) from error


async def _stay(output: Output, home: Path, supervisor: "Supervisor") -> int:
    output.line("Ctrl-C stops everything.")
    stack = _load("deploy.local.stack")
    try:
        ended = await supervisor.wait_for_end()
    except asyncio.CancelledError:
        with show_steps(output) as report:
            await stack.stop_stack(home, report)
        raise
    try:
        with show_steps(output) as report:
            await stack.stop_stack(home, report)
    except FolderInUse:
        output.line("The stack is being stopped by another command.")
        return 0
    output.problem(f"{ended.name} has ended; see {ended.log}")
    return EXIT_FAILED


def down() -> None:
    """Stop the embedded stack."""

    async def main(output: Output) -> int:
        try:
            stack = _load("deploy.local.stack")
            with show_steps(output) as report:
                count = await stack.stop_stack(home_folder(os.environ), report)
        except (DemoExtraMissing, FolderInUse) as error:
            output.problem(str(error))
            return EXIT_FAILED
        output.line(f"Stopped {count} processes." if count else "Nothing was running.")
        return 0

    run(main)


def status(*, as_json: JsonOption = False) -> None:
    """Show the processes of the embedded stack. Exits with 1 where one is not well."""

    async def main(output: Output) -> int:
        home = home_folder(os.environ)
        state = StateFile(home).read()
        if state is None:
            if as_json:
                output.json({"home": str(home), "processes": []})
            else:
                output.line(f"No stack runs in {home}; start one with `pannier up`.")
            return EXIT_FAILED
        try:
            rows = await _examine(state)
        except DemoExtraMissing as error:
            output.problem(str(error))
            return EXIT_FAILED
        if as_json:
            output.json({"home": str(home), "ready": state.ready, "processes": rows})
        else:
            _show_rows(output, rows)
            for note in state.notes:
                output.notice(note)
        return 0 if all(row["health"] == "serving" for row in rows) else EXIT_FAILED

    run(main)


async def _examine(state: StackState) -> list[dict[str, Any]]:
    checks = _load("deploy.local.checks")

    async def examine(record: ProcessRecord) -> dict[str, Any]:
        alive = is_alive(record.identity)
        health = "ended"
        if alive:
            try:
                await checks.check_process(record)
                health = "serving"
            except (NotReady, OSError) as error:
                health = f"not serving: {str(error) or type(error).__name__}"
        return {
            "name": record.name,
            "pid": record.identity.pid,
            "address": record.address,
            "health": health,
            "resident_bytes": await asyncio.to_thread(resident_bytes, record.identity),
            "log": record.log,
        }

    async with asyncio.TaskGroup() as tasks:
        examinations = [tasks.create_task(examine(each)) for each in state.processes]
    return [each.result() for each in examinations]


def _show_rows(output: Output, rows: list[dict[str, Any]]) -> None:
    output.table(
        ("process", ">pid", "health", "address", ">memory"),
        [
            (
                row["name"],
                str(row["pid"]),
                row["health"],
                row["address"],
                format_bytes(row["resident_bytes"]),
            )
            for row in rows
        ],
    )
    output.line(f"memory in all: {format_bytes(sum(row['resident_bytes'] for row in rows))}")


def show_stack(output: Output, state: StackState) -> None:
    """Shows where the parts of a stack are and what a user should know."""
    addresses = state.addresses
    output.line(f"  rag       {addresses.rag}")
    output.line(f"  cache     {addresses.cache}")
    output.line(f"  balancer  {addresses.balancer}")
    output.line(f"  traces    {addresses.trace_url}")
    for note in state.notes:
        output.notice(note)


@contextmanager
def show_steps(output: Output) -> Iterator[Report]:
    """Shows what the supervisor does: a line per finished step, and what is under way."""
    under_way: dict[str, str] = {}
    with output.console.status("…") as spinner:

        def report(progress: Progress) -> None:
            if progress.step in (Step.STARTING, Step.STOPPING):
                under_way[progress.name] = progress.step.value
            else:
                under_way.pop(progress.name, None)
                took = format_seconds(progress.seconds)
                output.line(f"  {progress.step.value:8} {progress.name:10} {took}")
            steps = [f"{step} {name}" for name, step in under_way.items()]
            spinner.update(shorten(", ".join(steps), _SPINNER_CHARACTERS))

        yield report


@contextmanager
def cancelled_by_signals() -> Iterator[None]:
    """Cancels the running task on SIGTERM and SIGHUP, as Ctrl-C does, so that it cleans up."""
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    caught = (signal.SIGTERM, signal.SIGHUP)
    for each in caught:
        if task is not None:
            loop.add_signal_handler(each, task.cancel)
    try:
        yield
    finally:
        for each in caught:
            loop.remove_signal_handler(each)
