"""Lets a model look for what a question needs, with tools, before another prompt answers it.

The model is asked step by step: what it asks for is done, all calls of a step at the same time, and
the results are added to the conversation. Its own words count for nothing: the answer is written
from the passages gathered, by the prompt and with the checks that all answers have.
"""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from services.common.clock import Clock
from services.common.errors import ServiceError
from services.rag.agent_tools import Tool, ToolResult, offered
from services.rag.core.agent_prompt import gathering_messages, tool_result
from services.rag.core.conversation import (
    ChatCompleted,
    ChatMessage,
    ChatStarted,
    TokenUsage,
    ToolCall,
)
from services.rag.core.gathered import Findings
from services.rag.core.profile import DegradationReason
from services.rag.core.prompt_size import PromptSizes
from services.rag.core.retrieved import NOTHING_FOUND, Confidence
from services.rag.core.tools import (
    BadArguments,
    ToolExecution,
    ToolOutcome,
    call_key,
    read_arguments,
)
from services.rag.models import ModelCatalogue
from services.rag.ports import ModelFacts, ToolModels
from services.rag.recorder import OpenStage
from services.rag.task import AnswerTask

__all__ = ["Agent", "AgentLimits", "Gathered"]

# A model that writes more than this and asks for nothing has begun to answer.
_LONGEST_WORDS = 600
_STEP_TOKEN_COUNT = 512
# Of what is left of the deadline, what gathering may take: the answer has to be written yet.
_DEADLINE_SHARE_RATIO = 0.6
_LEAST_SECONDS = 0.5
# Of the context, what the conversation may fill before the next step.
_FULL_RATIO = 0.7
# Steps in a row without one call that makes sense.
_MOST_BAD_STEPS = 2
_SHOWN_ARGUMENTS = 2_000
_SHOWN_DETAIL = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentLimits:
    """Bounds of gathering for one question.

    Attributes:
        step_count: Times the model is asked.
        call_count: Calls of tools that one step may have.
        tool_seconds: Longest time of one call of a tool.
        token_count: Tokens read and generated after which no further step is begun.
    """

    step_count: int
    call_count: int
    tool_seconds: float
    token_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """What a model has gathered.

    Attributes:
        findings: The passages.
        confidence: The best confidence of its searches of the documents.
        executions: The tools it asked for, in the order they ended.
        queries: What it looked for in the documents.
        usage: Tokens that it cost.
        problem: Why it could not go on; empty where it was done.
    """

    findings: Findings
    confidence: Confidence
    executions: tuple[ToolExecution, ...]
    queries: tuple[str, ...]
    usage: TokenUsage
    problem: str

    def has_used(self, tool: str) -> bool:
        """Says whether a tool has been of use."""
        return any(each.name == tool and each.outcome.is_success for each in self.executions)


@dataclass(slots=True, kw_only=True)
class _Run:
    """Gathering for one question, under way."""

    task: AnswerTask
    model: ModelFacts
    tools: dict[str, Tool]
    messages: list[ChatMessage]
    ends_at: float | None
    findings: Findings = field(default_factory=Findings)
    confidence: Confidence = NOTHING_FOUND
    executions: list[ToolExecution] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)
    made: set[tuple[str, str]] = field(default_factory=set)
    usage: TokenUsage = field(default_factory=TokenUsage)
    bad_step_count: int = 0

    def take(self, found: ToolResult) -> str:
        """Adds what a tool has found, and returns what the model is told of it."""
        if found.confidence is not None and found.confidence.score >= self.confidence.score:
            self.confidence = found.confidence
        if found.query:
            self.queries.append(found.query)
        return tool_result(self.findings.add(found.passages))


@dataclass(frozen=True, slots=True)
class _Told:
    """What came of a call, and what the model is told of it."""

    execution: ToolExecution
    text: str


class Agent:
    """Gathers passages with tools.

    Args:
        models: Asks for tools.
        catalogue: Models of the fleet.
        tools: All tools there are.
        sizes: Knows how many tokens prompts have.
        limits: Bounds.
        clock: Measures.
        note: Is told of each call of a tool when it has ended.
        remaining_seconds: What is left of the running call's deadline; None where there is none.
    """

    def __init__(
        self,
        *,
        models: ToolModels,
        catalogue: ModelCatalogue,
        tools: tuple[Tool, ...],
        sizes: PromptSizes,
        limits: AgentLimits,
        clock: Clock,
        note: Callable[[ToolExecution], None],
        remaining_seconds: Callable[[], float | None],
    ) -> None:
        self._models = models
        self._catalogue = catalogue
        self._tools = tools
        self._sizes = sizes
        self._limits = limits
        self._clock = clock
        self._note = note
        self._remaining_seconds = remaining_seconds

    async def gather(self, task: AnswerTask) -> Gathered:
        """Has a model gather passages for a question.

        What goes wrong is among the degradations where a tool failed, and in `problem` where the
        model could not go on.
        """
        problem, run = "", None
        with task.recorder.stage("agent") as stage:
            try:
                run = await self._begin(task)
                problem = await self._take_steps(run)
            except ServiceError as error:
                stage.note_failure(error)
                problem = error.message
            stage.item_count = len(run.findings) if run is not None else 0
        if run is None:
            return Gathered(
                findings=Findings(),
                confidence=NOTHING_FOUND,
                executions=(),
                queries=(),
                usage=TokenUsage(),
                problem=problem,
            )
        return Gathered(
            findings=run.findings,
            confidence=run.confidence,
            executions=tuple(run.executions),
            queries=tuple(dict.fromkeys(run.queries)),
            usage=run.usage,
            problem=problem,
        )

    async def _begin(self, task: AnswerTask) -> _Run:
        remaining = self._remaining_seconds()
        now = self._clock.monotonic()
        return _Run(
            task=task,
            model=await self._catalogue.chat_model(task.question.model),
            tools=offered(self._tools, task),
            messages=gathering_messages(task.question.text, task.prompt.history),
            ends_at=None if remaining is None else now + remaining * _DEADLINE_SHARE_RATIO,
        )

    async def _take_steps(self, run: _Run) -> str:
        """Asks the model until it is done; returns why it could not go on, empty where it was."""
        for step in range(1, self._limits.step_count + 1):
            if self._is_over(run):
                break
            calls = await self._ask(run)
            if not calls:
                break
            told = await self._call_all(run, calls, step)
            run.messages.append(ChatMessage("assistant", "", tool_calls=calls))
            run.messages += [
                ChatMessage("tool", each.text, tool_name=call.name, tool_call_id=call.id)
                for call, each in zip(calls, told, strict=True)
            ]
            made_sense = any(each.execution.outcome not in _SENSELESS for each in told)
            run.bad_step_count = 0 if made_sense else run.bad_step_count + 1
            if run.bad_step_count >= _MOST_BAD_STEPS:
                break
        senseless = [each for each in run.executions if each.outcome in _SENSELESS]
        if senseless and len(senseless) == len(run.executions):
            return f"the model's calls of tools make no sense: {senseless[-1].summary}"
        return ""

    def _is_over(self, run: _Run) -> bool:
        """Says whether time, tokens or context do not suffice for another step."""
        left = self._left_seconds(run)
        spent = run.usage.prompt_token_count + run.usage.completion_token_count
        size = sum(self._sizes.estimate(run.model.digest, each.content) for each in run.messages)
        context = run.task.sampling.context_token_count or 0
        return (
            (left is not None and left < _LEAST_SECONDS)
            or spent >= self._limits.token_count
            or bool(context and size > _FULL_RATIO * context)
        )

    async def _ask(self, run: _Run) -> tuple[ToolCall, ...]:
        """Asks the model for its next calls; none where it is done."""
        with run.task.recorder.stage("agent_step") as stage:
            stage.model = run.model.name
            return await self._calls_of(run, stage)

    async def _calls_of(self, run: _Run, stage: OpenStage) -> tuple[ToolCall, ...]:
        sampling = replace(
            run.task.sampling, max_output_token_count=_STEP_TOKEN_COUNT, stop_sequences=()
        )
        chat = self._models.chat_with_tools(
            run.model.name,
            tuple(run.messages),
            sampling,
            [each.definition for each in run.tools.values()],
            time_limit_seconds=self._left_seconds(run),
        )
        calls: list[ToolCall] = []
        word_count = 0
        async with aclosing(chat):
            async for event in chat:
                if isinstance(event, tuple):
                    calls += event
                elif isinstance(event, str):
                    word_count += len(event)
                    if word_count > _LONGEST_WORDS and not calls:
                        break
                elif isinstance(event, ChatStarted):
                    stage.model, stage.backend_id = event.model, event.backend_id
                elif isinstance(event, ChatCompleted):
                    self._count_tokens(run, stage, event.usage)
                    self._note_cut(run, event.usage.prompt_token_count)
        stage.item_count = len(calls)
        return tuple(calls)

    def _count_tokens(self, run: _Run, stage: OpenStage, usage: TokenUsage) -> None:
        stage.prompt_token_count = usage.prompt_token_count
        stage.completion_token_count = usage.completion_token_count
        run.usage = TokenUsage(
            run.usage.prompt_token_count + usage.prompt_token_count,
            run.usage.completion_token_count + usage.completion_token_count,
        )

    def _note_cut(self, run: _Run, token_count: int) -> None:
        """Notes if the model has not read all that it was told."""
        told = "\n".join(each.content for each in run.messages)
        if self._sizes.is_cut(run.model.digest, told, token_count):
            run.task.recorder.degrade(
                DegradationReason.CONTEXT_TRUNCATED,
                "agent_step",
                f"the model has read {token_count} tokens of what it was told",
            )

    async def _call_all(self, run: _Run, calls: tuple[ToolCall, ...], step: int) -> list[_Told]:
        """Does what a step asks for, all at the same time; the results are in its order."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._call(run, call, step, place))
                for place, call in enumerate(calls)
            ]
        return [task.result() for task in tasks]

    async def _call(self, run: _Run, call: ToolCall, step: int, place: int) -> _Told:
        started = self._clock.monotonic()
        outcome, summary, text = await self._outcome_of(run, call, place)
        execution = ToolExecution(
            name=call.name,
            arguments_json=call.arguments_json[:_SHOWN_ARGUMENTS],
            outcome=outcome,
            duration_seconds=self._clock.monotonic() - started,
            summary=summary[:_SHOWN_DETAIL],
            step=step,
        )
        run.executions.append(execution)
        self._note(execution)
        return _Told(execution, text)

    async def _outcome_of(
        self, run: _Run, call: ToolCall, place: int
    ) -> tuple[ToolOutcome, str, str]:
        """Returns what came of a call, in a few words, and what the model is told."""
        tool = run.tools.get(call.name)
        if tool is None:
            known = ", ".join(run.tools)
            problem = f"there is no tool {call.name[:64]!r}; there are {known}"
            return ToolOutcome.UNKNOWN_TOOL, problem, f"Error: {problem}."
        if place >= self._limits.call_count:
            problem = f"a step may have {self._limits.call_count} calls"
            return ToolOutcome.SKIPPED, problem, f"Error: {problem}; ask again."
        key = call_key(call)
        if key in run.made:
            told = "This call was made before; its result stands above."
            return ToolOutcome.REPEATED, "made before", told
        run.made.add(key)
        try:
            return await self._run_tool(run, tool, call)
        except BadArguments as error:
            run.made.discard(key)
            return ToolOutcome.INVALID_ARGUMENTS, str(error), f"Error: {error}."

    async def _run_tool(
        self, run: _Run, tool: Tool, call: ToolCall
    ) -> tuple[ToolOutcome, str, str]:
        arguments = read_arguments(tool.definition, call.arguments_json)
        name, recorder = tool.definition.name, run.task.recorder
        left = self._left_seconds(run)
        limit = self._limits.tool_seconds if left is None else min(left, self._limits.tool_seconds)
        try:
            with recorder.stage(f"tool_{name}") as stage:
                async with asyncio.timeout(limit):
                    found = await tool.run(arguments, run.task, time_limit_seconds=limit)
                stage.item_count = len(found.passages)
        except TimeoutError:
            problem = f"it took longer than {limit:.1f} s"
            outcome = ToolOutcome.TIMED_OUT
        except ServiceError as error:
            outcome, problem = ToolOutcome.FAILED, error.message
        else:
            return ToolOutcome.SUCCESS, found.summary, run.take(found)
        recorder.degrade(tool.failure, f"tool_{name}", problem)
        return outcome, problem, "Error: the tool failed. Go on without it."

    def _left_seconds(self, run: _Run) -> float | None:
        return None if run.ends_at is None else max(0.0, run.ends_at - self._clock.monotonic())


_SENSELESS = frozenset({ToolOutcome.UNKNOWN_TOOL, ToolOutcome.INVALID_ARGUMENTS})
