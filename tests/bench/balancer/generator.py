"""The load generator, a process of its own: sends a trace and writes down what became of it.

Open loop by default: each request is sent at its time, however many are still under way, and its
latency counts from the time it was to be sent. With `--workers` the trace is instead worked through
as fast as so many workers can, each request going to every target in turn.
"""

import argparse
import asyncio
import gc
import json
import resource
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop

from tests.bench.balancer.drivers.fifo import CentralFifo
from tests.bench.balancer.drivers.ollama import OllamaClient
from tests.bench.balancer.drivers.openai import OpenAIClient
from tests.bench.balancer.drivers.pannier import PannierClient
from tests.bench.balancer.drivers.port import ClientSession, Failed, Progress
from tests.bench.balancer.figures import Outcome
from tests.bench.balancer.prompts import Prompts
from tests.bench.balancer.traces import Request, read_trace

__all__ = ["main"]


@dataclass(frozen=True, slots=True)
class _Run:
    """What all requests of a run share; `begin` is an instant of `time.perf_counter`."""

    prompts: Prompts
    time_scale: float
    patience_seconds: float
    begin: float


def open_client(target: str, patience_wall_seconds: float) -> ClientSession:
    """Makes the client for a target, written `driver=address`.

    Raises:
        ValueError: There is no such driver.
    """
    driver, _, address = target.partition("=")
    match driver:
        case "ollama":
            return OllamaClient(address)
        case "openai":
            return OpenAIClient(address)
        case "fifo":
            return CentralFifo(address.split(","))
        case "pannier" | "pannier-resume":
            return PannierClient(
                address,
                deadline_wall_seconds=patience_wall_seconds,
                resume=driver == "pannier-resume",
            )
        case _:
            raise ValueError(f"no such driver: {driver}")


async def send(
    client: ClientSession, request: Request, run: _Run, *, target: int, due: float
) -> Outcome:
    """Sends one request and waits for its end; nothing that goes wrong there is raised."""
    now = time.perf_counter
    progress = Progress()
    started, failure = now(), ""
    try:
        async with asyncio.timeout(due + run.patience_seconds / run.time_scale - started):
            if request.kind == "chat":
                system, user = run.prompts.prefix(request), run.prompts.own(request)
                await client.chat(request, system, user, progress)
                if progress.first_at is None:
                    raise Failed("answer_empty")
            else:
                await client.embed(request, run.prompts.texts(request), progress)
    except TimeoutError:
        failure = "patience_ended"
    except Failed as failed:
        failure = str(failed)
    first = None if progress.first_at is None else (progress.first_at - due) * run.time_scale
    return Outcome(
        index=request.index,
        target=target,
        kind=request.kind,
        tenant=request.tenant,
        at_seconds=(due - run.begin) * run.time_scale,
        lag_seconds=(started - due) * run.time_scale,
        first_seconds=first,
        total_seconds=(now() - due) * run.time_scale,
        stall_seconds=progress.longest_gap * run.time_scale,
        token_count=progress.token_count,
        message_count=progress.message_count,
        failure=failure,
    )


async def run_open_loop(
    client: ClientSession, trace: tuple[Request, ...], run: _Run
) -> list[Outcome]:
    """Sends each request at its time."""
    now = time.perf_counter
    tasks: list[asyncio.Task[Outcome]] = []
    async with asyncio.TaskGroup() as group:
        for request in trace:
            due = run.begin + request.at_seconds / run.time_scale
            if (wait := due - now()) > 0:
                await asyncio.sleep(wait)
            tasks.append(group.create_task(send(client, request, run, target=0, due=due)))
    return [task.result() for task in tasks]


async def run_closed_loop(
    clients: list[ClientSession], trace: tuple[Request, ...], run: _Run, *, workers: int
) -> list[Outcome]:
    """Works through the trace, each request to every target."""
    now = time.perf_counter
    waiting: Iterator[Request] = iter(trace)
    outcomes: list[Outcome] = []

    async def work() -> None:
        for request in waiting:
            for target, client in enumerate(clients):
                outcomes.append(await send(client, request, run, target=target, due=now()))

    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(work())
    return outcomes


async def run(options: argparse.Namespace) -> dict[str, object]:
    """Sends the trace that the options name."""
    trace = read_trace(options.trace)
    prompts = Prompts(options.seed)
    patience = options.patience_seconds / options.time_scale
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(open_client(target, patience))
            for target in options.target
        ]
        # What exists now lives to the end; collecting it again and again would stop the clock.
        gc.freeze()
        begin = time.perf_counter()
        if options.begin_at:
            begin += options.begin_at - time.time()
        shared = _Run(prompts, options.time_scale, options.patience_seconds, begin)
        if options.workers:
            outcomes = await run_closed_loop(clients, trace, shared, workers=options.workers)
        else:
            outcomes = await run_open_loop(clients[0], trace, shared)
        seconds = time.perf_counter() - begin
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "wall_seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "outcomes": [asdict(outcome) for outcome in outcomes],
    }


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    option = parser.add_argument
    option("--trace", type=Path, required=True, help="the trace to send")
    option("--target", action="append", required=True, help="driver=address; may be repeated")
    option("--out", type=Path, required=True, help="file for the outcomes, JSON")
    option("--seed", type=int, default=0, help="seed of the texts")
    option("--time-scale", type=float, default=1.0, help="fleet seconds per wall second")
    option("--patience-seconds", type=float, default=600.0, help="fleet seconds until it gives up")
    option("--begin-at", type=float, default=0.0, help="epoch seconds at which the trace begins")
    option("--workers", type=int, default=0, help="closed loop with so many workers")
    options = parser.parse_args()
    options.out.write_text(json.dumps(uvloop.run(run(options))))


if __name__ == "__main__":
    main()
