"""Runs the traffic of `pannier load`: asks, has things go wrong, shows what comes of it."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rich.live import Live
from rich.text import Text

from deploy.local.state import ProcessRecord
from pannier.commands.formatting import format_seconds
from pannier.commands.load_calls import Asker
from pannier.commands.load_deeds import Deeds
from pannier.commands.load_faults import FaultSession
from pannier.commands.load_view import live_view, progress_line
from pannier.commands.output import Output
from pannier.load.arrivals import Timetable, arrival_times
from pannier.load.generator import Generator
from pannier.load.outcome import Outcome
from pannier.load.scenario import Phase, Scenario
from pannier.load.tally import Tally
from pannier.load.traffic import Ask, QuestionPool, Traffic

__all__ = ["Run", "RunOptions", "make_plan"]

_VIEW_SECONDS = 0.5
_LINE_SECONDS = 10.0
_RENEWAL_SECONDS = 0.25

Questions = Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How traffic is run.

    Attributes:
        poisson: Whether questions come at random; else evenly.
        seed: Of everything drawn.
        max_in_flight: Questions under way at once.
        drain_seconds: How long the last ones may take to end.
        grace_seconds: How long those under way may take when the run is broken off.
    """

    poisson: bool
    seed: int
    max_in_flight: int
    drain_seconds: float
    grace_seconds: float


def make_plan(
    phases: Sequence[Phase], questions: Mapping[str, Questions], *, poisson: bool, seed: int
) -> Iterator[tuple[float, Ask]]:
    """Yields all questions of a run with the seconds after its beginning, the same for one seed.

    Args:
        phases: The parts of the run.
        questions: Questions by the name that phases use.
        poisson: Whether they come at random.
        seed: Of everything drawn.
    """
    times = random.Random(f"{seed}/arrivals") if poisson else None
    pools = {
        (name, fresh): QuestionPool(
            groups,
            random.Random(f"{seed}/questions/{name}"),
            tag=f"{seed}-" if fresh else "",
        )
        for name, groups in questions.items()
        for fresh in (False, True)
    }
    traffic = Traffic(random.Random(f"{seed}/traffic"))
    began = 0.0
    for number, phase in enumerate(phases):
        asks = traffic.asks(pools[phase.questions, phase.fresh], phase.mix, phase=number)
        for after in arrival_times(Timetable([phase.stage]), rng=times):
            yield began + after, next(asks)
        began += phase.stage.seconds


@dataclass(slots=True, kw_only=True)
class Run:
    """A run of traffic.

    Attributes:
        scenario: What is run.
        questions: Questions by the name that phases use.
        options: How it is run.
        standins: Backends that take orders.
        processes: Processes of the local stack by name.
        asker: Asks.
        deeds: Does what else is to be done.
        tally: What has become of the questions.
        problems: What could not be undone.
        elapsed_seconds: How long questions were asked; more than planned where the generator
            could not keep up.
        broken_off: Whether it was ended before its time.
    """

    scenario: Scenario
    questions: Mapping[str, Questions]
    options: RunOptions
    standins: Sequence[str]
    processes: Mapping[str, ProcessRecord]
    asker: Asker
    deeds: Deeds
    tally: Tally = field(default_factory=Tally)
    problems: list[str] = field(default_factory=list)
    elapsed_seconds: float = 0.0
    broken_off: bool = False
    _began: float = 0.0
    _asked_until: float = 0.0
    _phase: int = 0

    @property
    def answered_within_seconds(self) -> float:
        """How long it took until the last answer: what the rate of answers goes by."""
        return max(self.elapsed_seconds, self.tally.last_ended - self._began)

    async def run(self, output: Output, *, told: Callable[[str], None]) -> None:
        """Runs everything; whatever happens, nothing stays wrong.

        Args:
            output: Where the state of affairs is shown.
            told: Receives what happens, in words.

        Raises:
            NotAStandin: A backend cannot be told to fail.
            ProcessLookupError: A process that was to be stopped is not there.
        """
        session = FaultSession(self.standins, self.processes)
        plan = make_plan(
            self.scenario.phases,
            self.questions,
            poisson=self.options.poisson,
            seed=self.options.seed,
        )
        generator = Generator(
            send=self._send,
            tally=self.tally,
            monotonic=time.monotonic,
            max_in_flight=self.options.max_in_flight,
            drain_seconds=self.options.drain_seconds,
            grace_seconds=self.options.grace_seconds,
        )
        try:
            with session:
                await self._run_all(generator, plan, session, output, told)
        except BaseExceptionGroup as group:
            # The others were cancelled because of the first.
            raise group.exceptions[0] from None
        finally:
            advice = "`pannier load --clear-faults` tries again"
            self.problems += [f"{each}; {advice}" for each in session.problems]
            try:
                await self.deeds.undo()
            finally:
                self.problems += self.deeds.problems

    async def _run_all(
        self,
        generator: Generator,
        plan: Iterator[tuple[float, Ask]],
        session: FaultSession,
        output: Output,
        told: Callable[[str], None],
    ) -> None:
        first = self.scenario.phases[0]
        try:
            # Before the first question, which is due at once and would else not meet them.
            await asyncio.to_thread(session.apply, first.faults, for_seconds=first.stage.seconds)
        except asyncio.CancelledError:
            self.broken_off = True
            raise
        self._began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            showing = tasks.create_task(self._show(output))
            conducting = tasks.create_task(self._conduct(session, told))
            asking = tasks.create_task(generator.run(self._noting(plan), began=self._began))
            try:
                # Phases are gone through to their end, with or without questions.
                await asyncio.wait({asking, conducting})
            except asyncio.CancelledError:
                self.broken_off = True
                self._note_elapsed()
                conducting.cancel()
                # Before the grace of what is under way: it may then still end well.
                session.close()
                asking.cancel()
                await asyncio.wait({asking})
                raise
            finally:
                self._note_elapsed()
                conducting.cancel()
                showing.cancel()

    def _noting(self, plan: Iterator[tuple[float, Ask]]) -> Iterator[tuple[float, Ask]]:
        """Hands on a plan, and notes until when there was something left to ask."""
        for each in plan:
            yield each
            # Now the next one is wanted: this one was asked.
            self._asked_until = time.monotonic() - self._began

    def _note_elapsed(self) -> None:
        if not self.elapsed_seconds:
            since = time.monotonic() - self._began
            # The wait for the last answers does not count.
            planned = min(since, self.scenario.seconds)
            self.elapsed_seconds = max(planned, self._asked_until)

    async def _send(self, ask: Ask) -> Outcome:
        phase = self.scenario.phases[ask.phase]
        return await self.asker.send(
            ask, model=phase.model, cache_policy=phase.cache_policy, web=phase.web
        )

    async def _conduct(self, session: FaultSession, told: Callable[[str], None]) -> None:
        """Goes through the phases: has things go wrong when they begin, puts all right after."""
        ends = self._began
        for number, phase in enumerate(self.scenario.phases):
            self._phase = number
            seconds = phase.stage.seconds
            ends += seconds
            if phase.happenings() or len(self.scenario.phases) > 1:
                happenings = "; ".join(phase.happenings()) or "nothing goes wrong"
                told(f"{phase.name} for {format_seconds(seconds)}: {happenings}")
            if number > 0:
                # Those of the first phase are in force since before it began.
                await asyncio.to_thread(session.apply, phase.faults, for_seconds=seconds)
            doing = asyncio.create_task(self.deeds.run(phase))
            try:
                while (left := ends - time.monotonic()) > 0:
                    await asyncio.sleep(min(left, _RENEWAL_SECONDS) if phase.faults else left)
                    await asyncio.to_thread(session.renew)
            finally:
                doing.cancel()
                await asyncio.wait({doing})
            if session.is_active:
                await asyncio.to_thread(session.undo)
                told(f"{phase.name} is over; what went wrong is put right")

    async def _show(self, output: Output) -> None:
        if not output.console.is_terminal or output.console.is_dumb_terminal:
            while True:
                await asyncio.sleep(_LINE_SECONDS)
                now = time.monotonic()
                elapsed = now - self._began
                line = progress_line(self.tally, title=self._title(now), elapsed=elapsed, now=now)
                output.errors.print(line, markup=False, soft_wrap=True)
        with Live(console=output.console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(self._view(output), refresh=True)
                await asyncio.sleep(_VIEW_SECONDS)

    def _view(self, output: Output) -> Text:
        now = time.monotonic()
        elapsed = now - self._began
        planned = Timetable([each.stage for each in self.scenario.phases]).rate_at(elapsed)
        return live_view(
            self.tally,
            title=self._title(now),
            planned_rate=planned,
            elapsed=elapsed,
            now=now,
            width=output.console.width,
            # The last line stays free, or the terminal scrolls.
            height=output.console.height - 1,
        )

    def _title(self, now: float) -> str:
        elapsed = now - self._began
        phase = self.scenario.phases[self._phase]
        return (
            f"{self.scenario.name}, {phase.name}: "
            f"{format_seconds(min(elapsed, self.scenario.seconds))} of "
            f"{format_seconds(self.scenario.seconds)}"
        )
