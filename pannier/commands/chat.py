"""`pannier chat`: questions and answers in turns, each understood in the light of those before."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import grpc
import typer

from pannier.client import RemoteError, TraceContext
from pannier.commands.ask import Answer, show_answer
from pannier.commands.connection import (
    EXIT_FAILED,
    AddressOption,
    CollectionOption,
    TenantOption,
    TimeoutOption,
    connect,
    run,
)
from pannier.commands.formatting import shorten
from pannier.commands.lines import read_lines
from pannier.commands.output import Output
from pannier.rag.v1 import conversation_pb2, rag_service_pb2, rag_service_pb2_grpc

__all__ = ["chat"]

_PROMPT = "> "
_HELP = "/new begins anew, /history shows what was said, /sources what the answer stands on, /quit"
_EXCERPT_CHARACTERS = 300
_LISTING_SECONDS = 10.0
# An answer that was stopped is put away for a moment before the next question is taken.
_BUSY_ATTEMPT_COUNT = 4


class _Quit(Exception):
    """The user wants to leave."""


@dataclass(slots=True)
class _Session:
    """A conversation on a terminal, or from a file.

    Attributes:
        stub: The rag service.
        output: Where to write.
        template: How questions are asked.
        timeout_seconds: How long an answer may take.
        conversation_id: The conversation; empty before the first answer.
        last: The last whole answer.
        failed: Whether a question had no whole answer.
        answering: The answer under way.
    """

    stub: Any
    output: Output
    template: rag_service_pb2.QueryRequest
    timeout_seconds: float
    conversation_id: str = ""
    last: rag_service_pb2.QueryResponse | None = None
    failed: bool = False
    answering: asyncio.Task[None] | None = field(default=None, repr=False)

    async def take(self, line: str) -> None:
        """Does what a line says: a command, or a question.

        Raises:
            _Quit: It says to leave.
        """
        commands = {"/new": self._begin, "/history": self._show_history, "/sources": self._sources}
        word = line.split(maxsplit=1)[0]
        if word == "/quit":
            raise _Quit
        if word in commands:
            await self._guarded(commands[word]())
        elif word.startswith("/"):
            self.output.notice(_HELP)
        else:
            await self._guarded(self._ask(line))

    def stop(self) -> bool:
        """Stops the answer under way; returns whether there was one."""
        return self.answering is not None and self.answering.cancel()

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Does some work that may be stopped, and says what goes wrong with it."""
        self.answering = asyncio.create_task(work)
        try:
            await asyncio.wait([self.answering])
        except asyncio.CancelledError:
            self.answering.cancel()
            raise
        task, self.answering = self.answering, None
        if task.cancelled():
            self.failed = True
            self.output.line()
            self.output.notice("stopped")
            return
        error = task.exception()
        if isinstance(error, grpc.aio.AioRpcError):
            self.failed = True
            self.output.remote_error(RemoteError.from_call(error))
        elif error is not None:
            raise error

    async def _ask(self, question: str) -> None:
        for attempt in range(1, _BUSY_ATTEMPT_COUNT + 1):
            try:
                await self._ask_once(question)
            except grpc.aio.AioRpcError as error:
                remote = RemoteError.from_call(error)
                if remote.reason != "CONVERSATION_BUSY" or attempt == _BUSY_ATTEMPT_COUNT:
                    raise
                await asyncio.sleep(remote.retry_delay_seconds or 1.0)
            else:
                return

    async def _ask_once(self, question: str) -> None:
        answer = Answer(TraceContext.new())
        query = rag_service_pb2.QueryRequest()
        query.CopyFrom(self.template)
        query.query = question
        started = time.monotonic()
        call = self.stub.Chat(
            rag_service_pb2.ChatRequest(conversation_id=self.conversation_id, query=query),
            timeout=self.timeout_seconds,
            metadata=[("traceparent", answer.trace.traceparent)],
        )
        try:
            async for event in call:
                if event.HasField("started"):
                    self._note(event.started)
                else:
                    self._show(event.answer, answer, time.monotonic() - started)
        finally:
            if answer.text:
                self.output.line()
        answer.total_seconds = time.monotonic() - started
        self.last = answer.completed
        self.failed |= answer.completed is None
        show_answer(self.output, answer)

    def _note(self, started: conversation_pb2.ConversationStarted) -> None:
        self.conversation_id = started.conversation_id
        if started.is_new:
            self.output.notice(f"conversation {started.conversation_id}")

    def _show(
        self, event: rag_service_pb2.StreamQueryResponse, answer: Answer, elapsed_seconds: float
    ) -> None:
        kind = event.WhichOneof("event")
        if kind == "text_delta":
            if answer.first_text_seconds is None:
                answer.first_text_seconds = elapsed_seconds
            answer.text += event.text_delta
            self.output.piece(event.text_delta)
        elif kind == "completed":
            answer.completed = event.completed

    async def _begin(self) -> None:
        self.conversation_id, self.last = "", None

    async def _show_history(self) -> None:
        if not self.conversation_id:
            self.output.notice("Nothing has been said yet.")
            return
        request = conversation_pb2.GetConversationRequest(conversation_id=self.conversation_id)
        while True:
            page = await self.stub.GetConversation(request, timeout=_LISTING_SECONDS)
            for turn in page.turns:
                self.output.line(f"{turn.number}. {turn.question}", style="bold")
                self.output.line(turn.answer + (" … (interrupted)" if turn.interrupted else ""))
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    async def _sources(self) -> None:
        if self.last is None or not self.last.passages:
            self.output.notice("There is no answer with sources.")
            return
        self.output.table(
            (">#", "title", "document", "text"),
            [
                (
                    f"[{each.marker}]",
                    shorten(each.title, 30),
                    shorten(each.document_id, 40),
                    shorten(each.text, _EXCERPT_CHARACTERS),
                )
                for each in self.last.passages
            ],
        )


def chat(
    *,
    collection: CollectionOption = "default",
    model: Annotated[str, typer.Option(help="Model that answers. Default: the service's.")] = "",
    mode: Annotated[
        Literal["rag", "deep", "agent", "direct"],
        typer.Option(help="How to answer; direct asks the model alone."),
    ] = "rag",
    conversation: Annotated[
        str, typer.Option(help="Id of a conversation to go on with. Default: a new one.")
    ] = "",
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 180.0,
) -> None:
    """Answer questions in turns, from the terminal or one a line from a file or pipe.

    Ctrl-C stops an answer, /quit or Ctrl-D leaves, /help shows the other commands.
    """
    template = rag_service_pb2.QueryRequest(
        collection="" if mode == "direct" else collection,
        model=model,
        mode=rag_service_pb2.QueryMode.Value(f"QUERY_MODE_{mode.upper()}"),
    )

    async def main(output: Output) -> int:
        async with connect("rag", address=address, tenant=tenant) as connection:
            stub: Any = rag_service_pb2_grpc.RagServiceStub(connection.channel)
            session = _Session(stub, output, template, timeout, conversation)
            await _converse(session, interactive=sys.stdin.isatty())
        return EXIT_FAILED if session.failed and not sys.stdin.isatty() else 0

    run(main)


async def _converse(session: _Session, *, interactive: bool) -> None:
    """Takes lines until there are no more, or one says to leave."""
    program = asyncio.current_task()

    def interrupt() -> None:
        if session.stop() or program is None:
            return
        if interactive:
            session.output.notice("\n/quit leaves")
            session.output.piece(_PROMPT)
        else:
            program.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupt)
    if interactive:
        session.output.notice(_HELP)
    try:
        async for line in _prompted(session.output, interactive=interactive):
            if line.strip():
                await session.take(line.strip())
    except _Quit:
        return
    if interactive:
        session.output.line()


async def _prompted(output: Output, *, interactive: bool) -> AsyncIterator[str]:
    lines = read_lines(sys.stdin)
    while True:
        if interactive:
            output.piece(_PROMPT)
        line = await lines.get()
        if line is None:
            return
        yield line
