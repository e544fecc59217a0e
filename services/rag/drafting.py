"""What comes of what a model says: events while it speaks, and the answer in the end."""

import asyncio

from services.common.errors import ServiceError, StatusCode
from services.rag.cache_port import (
    CachedInference,
)
from services.rag.core.answer import Answer, AnswerEvent, AnswerOrigin
from services.rag.core.conversation import TokenUsage
from services.rag.core.draft import Draft
from services.rag.core.profile import WarningKind
from services.rag.inference import Inference
from services.rag.task import AnswerTask

__all__ = ["answer_of", "finished", "is_complete", "may_end_here", "taken"]


async def taken(draft: Draft, text: str) -> list[AnswerEvent]:
    """Adds what a model says to a draft, and returns what comes of it."""
    shown = draft.append(text)
    events: list[AnswerEvent] = [shown] if shown else []
    if draft.may_judge:
        # Milliseconds for each sentence, which other calls must not wait for.
        events += await asyncio.to_thread(draft.judge)
    return events


async def finished(draft: Draft) -> list[AnswerEvent]:
    """Ends a draft, and returns what comes of it."""
    shown = draft.finish()
    events: list[AnswerEvent] = [shown] if shown else []
    if draft.passages:
        events += await asyncio.to_thread(draft.judge)
    return events


def may_end_here(error: ServiceError, task: AnswerTask, draft: Draft) -> bool:
    """Says whether an answer that the deadline has cut is given as far as it has come."""
    return (
        error.status_code is StatusCode.DEADLINE_EXCEEDED
        and not draft.is_json
        and (draft.has_whole_sentence or (task.partial_answers and bool(draft.text.strip())))
    )


def is_complete(made: CachedInference) -> bool:
    """Says whether a model has come to an end by itself, or to the limit that was set."""
    return bool(made.text) and made.finish_reason in ("stop", "length")


def answer_of(
    inference: Inference,
    made: CachedInference | None,
    origin: AnswerOrigin,
    *,
    model: str,
    backend_id: str = "",
) -> Answer:
    """Returns the answer that a draft has come to, after noting what is wrong with it.

    Args:
        inference: The prompt, with its draft.
        made: What is known of how it was made; None where the deadline has cut it.
        origin: Who has given it.
        model: Who has made it.
        backend_id: Where, if it was made for this call.
    """
    task, draft = inference.task, inference.draft
    if draft.unknown_marker_count:
        task.recorder.warn(
            WarningKind.CITATION,
            f"{draft.unknown_marker_count} markers of the answer name no passage.",
        )
    if not draft.text.strip():
        task.recorder.warn(WarningKind.EMPTY_ANSWER, "The model's answer is empty.")
    if made is not None and made.finish_reason == "length":
        task.recorder.warn(WarningKind.ANSWER_CUT, "The answer was cut at the token limit.")
    return Answer(
        text=draft.text,
        citations=tuple(draft.citations),
        passages=draft.passages,
        origin=origin,
        mode=task.question.mode,
        model=model,
        backend_id=backend_id,
        finish_reason=made.finish_reason if made is not None else "",
        usage=made.usage if made is not None else TokenUsage(),
        generation_seconds=made.generation_seconds if made is not None else 0.0,
    )
