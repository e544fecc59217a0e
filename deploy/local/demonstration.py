"""What the demo does, step by step, and what must have happened for it to count.

Starts the stack in a folder of its own, takes in the documentation of standard-library modules,
asks questions, shows citations, the cache, a trace and statistics, and stops everything. Ends with
status 1 where something did not happen that should have.
"""

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local.demo_corpus import render_corpus
from deploy.local.processes import is_alive
from deploy.local.stack import start_stack, stop_stack
from deploy.local.state import AlreadyUp, FolderInUse, StackState, home_folder
from deploy.local.supervisor import StartFailed
from pannier.client import RemoteError
from pannier.commands.ask import Answer, ask_question, show_answer
from pannier.commands.connection import Unreachable
from pannier.commands.formatting import format_seconds
from pannier.commands.ingest import show_outcome, show_progress
from pannier.commands.ingestion import Tally, ingest_files
from pannier.commands.output import Output
from pannier.commands.sources import find_files
from pannier.commands.spans import Span
from pannier.commands.stack import cancelled_by_signals, show_stack, show_steps
from pannier.commands.stats import get_stats, show_stats
from pannier.commands.traces import TraceUnavailable, fetch_trace
from pannier.commands.waterfall_view import show_waterfall
from pannier.rag.v1 import rag_service_pb2

__all__ = ["missing_hops", "run_demo"]

COLLECTION = "standard-library"
QUESTIONS = (
    "Which function returns the best close matches of a word from a list?",
    "Which function returns a random URL-safe text string?",
    "How is common leading whitespace removed from every line of a text?",
    "What is the difference between a shallow and a deep copy?",
    "What does functools.lru_cache do?",
)

_TENANT = "default"
_INGEST_LIMIT_SECONDS = 1800.0
_ANSWER_LIMIT_SECONDS = 180.0
_STATS_LIMIT_SECONDS = 10.0


@dataclass(slots=True)
class Demo:
    """A run of the demo.

    Attributes:
        output: Where it writes.
        home: The state folder.
        problems: What did not happen that should have.
    """

    output: Output
    home: Path
    problems: list[str] = field(default_factory=list)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Shows what is done now, and how long it took."""
        self.output.line()
        self.output.line(f"== {title}", style="bold")
        started = time.monotonic()
        yield
        self.output.line(f"-- {format_seconds(time.monotonic() - started)}", style="dim")

    def expect(self, what: str, *, happened: bool) -> None:
        """Notes what did not happen."""
        if not happened:
            self.problems.append(what)
            self.output.problem(f"Expected, but not so: {what}")

    async def run(self) -> None:
        """Does everything, and leaves nothing running."""
        state: StackState | None = None
        try:
            state = await self.start()
            await self.ingest(state)
            first = await self.ask_all(state)
            await self.ask_again(state, first)
            await self.show_trace(state, first)
            await self.show_statistics(state)
        finally:
            await self.stop(state)

    async def start(self) -> StackState:
        """Starts the stack; one that runs already will do."""
        with self.step("Start the stack"):
            try:
                with show_steps(self.output) as report:
                    state = (await start_stack(self.home, os.environ, report)).state
            except AlreadyUp as error:
                self.output.line("It is already up.")
                state = error.state
            show_stack(self.output, state)
        return state

    async def stop(self, state: StackState | None) -> None:
        """Stops the stack and makes sure that it is gone."""
        with self.step("Stop everything"):
            with show_steps(self.output) as report:
                await stop_stack(self.home, report)
            left = (
                [each.name for each in state.processes if is_alive(each.identity)] if state else []
            )
            self.expect(f"no process is left running ({', '.join(left)})", happened=not left)

    async def ingest(self, state: StackState) -> None:
        """Takes in the documents."""
        with self.step("Write the documentation of standard-library modules to files"):
            corpus = await asyncio.to_thread(render_corpus, self.home / "documents")
            self.output.line(
                f"{corpus.document_count} modules, {corpus.character_count / 1000:.0f} thousand "
                f"characters, none shortened"
            )
        with self.step("Take them in: chunks, vectors, word index"):
            files = find_files([corpus.folder])
            tally = Tally(len(files))
            with show_progress(self.output, tally) as progressed:
                await ingest_files(
                    files,
                    tally,
                    collection=COLLECTION,
                    tenant=_TENANT,
                    address=state.addresses.rag,
                    timeout_seconds=_INGEST_LIMIT_SECONDS,
                    progressed=progressed,
                )
            show_outcome(self.output, tally)
            stored = tally.completed is not None and not tally.failures
            self.expect("all documents are stored", happened=stored)

    async def ask_all(self, state: StackState) -> Answer:
        """Asks all questions and returns the answer to the first."""
        answers = []
        for number, question in enumerate(QUESTIONS, 1):
            with self.step(f"Question {number}: {question}"):
                answer = await self._ask(state, question)
                answers.append(answer)
                cited = answer.completed is not None and bool(answer.completed.citations)
                self.expect(f"the answer to question {number} has citations", happened=cited)
        return answers[0]

    async def ask_again(self, state: StackState, first: Answer) -> None:
        """Asks the first question again, which the cache answers."""
        with self.step(f"Question 1 again: {QUESTIONS[0]}"):
            again = await self._ask(state, QUESTIONS[0])
            cached = (
                again.completed is not None
                and again.completed.origin == rag_service_pb2.ANSWER_ORIGIN_CACHED
            )
            self.expect("the same question again is answered from the cache", happened=cached)
            self.output.line(
                f"{format_seconds(first.total_seconds or 0)} the first time, "
                f"{format_seconds(again.total_seconds or 0)} from the cache"
            )

    async def _ask(self, state: StackState, question: str) -> Answer:
        request = rag_service_pb2.QueryRequest(collection=COLLECTION, query=question)
        answer = await ask_question(
            request,
            tenant=_TENANT,
            address=state.addresses.rag,
            timeout_seconds=_ANSWER_LIMIT_SECONDS,
            output=self.output,
        )
        show_answer(self.output, answer)
        return answer

    async def show_trace(self, state: StackState, answer: Answer) -> None:
        """Shows where the time of an answer went."""
        with self.step(f"Where the time of the first answer went (trace {answer.trace.trace_id})"):
            try:
                trace = await fetch_trace(state.addresses.trace_url, answer.trace)
            except TraceUnavailable as error:
                self.expect(f"the trace can be read ({error})", happened=False)
                return
            profile = answer.completed.profile if answer.completed is not None else None
            show_waterfall(self.output, trace, profile)
            for hop in missing_hops(trace.spans):
                self.expect(f"the trace shows {hop}", happened=False)

    async def show_statistics(self, state: StackState) -> None:
        """Shows what balancer and cache have counted."""
        addresses = {"balancer": state.addresses.balancer, "cache": state.addresses.cache}
        for service, address in addresses.items():
            with self.step(f"Statistics of {service}"):
                response = await get_stats(
                    service,
                    tenant=_TENANT,
                    address=address,
                    timeout_seconds=_STATS_LIMIT_SECONDS,
                )
                show_stats(self.output, service, response)


def missing_hops(spans: tuple[Span, ...]) -> list[str]:
    """Names the hops of an answer that a trace should show and does not."""
    services = {each.service for each in spans}
    callers = {each.service for each in spans if each.kind == "client"}
    hops = [name for name in ("rag", "cache", "balancer") if name not in services]
    if "cache" not in callers:
        hops.append("calls from cache to Redis")
    if "balancer" not in callers:
        hops.append("calls from balancer to Ollama")
    return hops


async def run_demo(output: Output, *, stay: bool) -> int:
    """Runs the demo.

    Args:
        output: Where it writes.
        stay: Whether to start the stack in PANNIER_HOME or `.pannier`, take in the documents and
            leave it running.

    Returns:
        The exit status: 1 where something did not happen that should have.
    """
    own_folder = not stay and not os.environ.get("PANNIER_HOME")
    home = Path(tempfile.mkdtemp(prefix="pannier-demo-")) if own_folder else home_folder(os.environ)
    demo = Demo(output, home)
    started = time.monotonic()
    with cancelled_by_signals():
        try:
            if stay:
                await demo.ingest(await demo.start())
                output.line()
                output.line(f'Try: pannier ask "{QUESTIONS[0]}" -c {COLLECTION} --trace')
                output.line("`pannier down` stops everything.")
            else:
                await demo.run()
        except (StartFailed, FolderInUse, RemoteError, Unreachable, OSError) as error:
            demo.expect(f"everything works ({error})", happened=False)
        finally:
            if own_folder and not demo.problems:
                await asyncio.to_thread(shutil.rmtree, home)
    if demo.problems:
        output.problem(f"\nNot all went as it should: {'; '.join(demo.problems)}")
        output.problem(f"Logs are in {home / 'log'}")
        return 1
    output.line(f"\nAll of it took {format_seconds(time.monotonic() - started)}.")
    return 0
