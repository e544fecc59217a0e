"""Reads an answer from its stream, and shows meanwhile how far it is."""

import time
from collections.abc import AsyncIterable
from dataclasses import dataclass, field

from rich.status import Status
from rich.text import Text

from pannier.client import TraceContext
from pannier.commands.formatting import clean, format_seconds
from pannier.commands.output import Output
from pannier.rag.v1 import rag_service_pb2

__all__ = ["Answer", "describe_stages", "read_answer"]

_STAGES = {
    "collection": "looking up the collection",
    "query_lookup": "asking the cache",
    "semantic_lookup": "asking the cache",
    "inference_lookup": "asking the cache",
    "inference_store": "keeping the answer",
    "rewrite": "understanding the question",
    "expand": "looking for other wordings",
    "embed_question": "embedding the question",
    "vector_search": "searching by meaning",
    "keyword_search": "searching by words",
    "load_passages": "reading the passages",
    "rerank": "ordering the passages",
    "web_search": "searching the web",
    "model": "choosing a model",
    "generate": "waiting for the model",
    "verify": "checking the answer",
}


@dataclass(slots=True)
class Answer:
    """An answer as its stream brings it.

    Attributes:
        trace: Trace of the call.
        first_text_seconds: From the call until the first text; None before.
        total_seconds: From the call until the end; None before.
        text: What has come so far.
        query_id: Name of the answer; empty before the first event.
        completed: The whole answer; None until the stream has ended well.
        failed: Why there is no whole answer; None until the stream has said so.
    """

    trace: TraceContext
    first_text_seconds: float | None = None
    total_seconds: float | None = None
    text: str = ""
    query_id: str = ""
    completed: rag_service_pb2.QueryResponse | None = None
    failed: rag_service_pb2.QueryFailed | None = None


@dataclass(slots=True)
class _Waiting:
    """A line that says what is waited for, on a terminal, until the first text comes."""

    output: Output | None
    open_stages: dict[str, int] = field(default_factory=dict)
    status: Status | None = None

    def __post_init__(self) -> None:
        if self.output is not None and self.output.errors.is_terminal:
            self.status = self.output.errors.status(Text("asking"))
            self.status.start()

    def note(self, progress: rag_service_pb2.QueryProgress) -> None:
        """Notes that a stage has begun or ended."""
        begun = progress.state == rag_service_pb2.PROGRESS_STATE_STARTED
        count = self.open_stages.get(progress.stage, 0) + (1 if begun else -1)
        self.open_stages[progress.stage] = count
        self.show()

    def show(self, suffix: str = "") -> None:
        """Says which stages are under way."""
        under_way = [stage for stage, count in self.open_stages.items() if count > 0]
        if self.status is not None and under_way:
            self.status.update(Text(clean(describe_stages(under_way) + suffix)))

    def end(self) -> None:
        """Removes the line."""
        if self.status is not None:
            self.status.stop()
            self.status = None


def describe_stages(stages: list[str]) -> str:
    """Says in words what is done in stages."""
    words = [_STAGES.get(stage, stage.replace("_", " ")) for stage in stages]
    return ", ".join(dict.fromkeys(words))


async def read_answer(
    events: AsyncIterable[rag_service_pb2.StreamQueryResponse],
    answer: Answer,
    output: Output | None,
    *,
    started: float,
) -> None:
    """Reads an answer to its end, and shows its text as it comes.

    Args:
        events: The stream.
        answer: Receives what comes, also where the stream breaks off.
        output: Where the text goes; None to show nothing.
        started: When the call was made, by `time.monotonic`.
    """
    waiting = _Waiting(output)
    try:
        async for event in events:
            kind = event.WhichOneof("event")
            if kind == "text_delta":
                waiting.end()
                if answer.first_text_seconds is None:
                    answer.first_text_seconds = time.monotonic() - started
                answer.text += event.text_delta
                if output is not None:
                    output.piece(event.text_delta)
            elif kind == "progress":
                waiting.note(event.progress)
            elif kind == "heartbeat":
                waiting.show(f" for {format_seconds(time.monotonic() - started)}")
            elif kind == "started":
                answer.query_id = event.started.query_id
            elif kind == "completed":
                answer.completed = event.completed
            elif kind == "failed":
                answer.failed = event.failed
    finally:
        waiting.end()
        answer.total_seconds = time.monotonic() - started
        if output is not None:
            _end_text(output, answer)


def _end_text(output: Output, answer: Answer) -> None:
    failed = answer.failed
    if failed is not None and not answer.text and failed.partial_answer:
        output.piece(failed.partial_answer)
        answer.text = failed.partial_answer
    if answer.text:
        output.line()
    if failed is not None and answer.text:
        output.notice(f"The answer broke off after {len(answer.text)} characters.")
