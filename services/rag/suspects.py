"""Marks the passages that look like instructions to a model, and warns of them."""

import asyncio
from collections.abc import Sequence

from services.rag.core.injection import are_known, demote_suspects
from services.rag.core.passages import RankedPassage
from services.rag.core.profile import WarningKind
from services.rag.recorder import Recorder

__all__ = ["mark_suspects"]


async def mark_suspects(
    passages: Sequence[RankedPassage], recorder: Recorder
) -> tuple[RankedPassage, ...]:
    """Returns the passages, best first; those that look like instructions count half.

    Args:
        passages: Best first.
        recorder: Receives the warning.
    """
    if are_known(passages):
        judged = demote_suspects(passages)
    else:
        judged = await asyncio.to_thread(demote_suspects, passages)
    suspects = [each.passage for each in judged if each.passage.injection_suspected]
    if suspects:
        names = ", ".join(dict.fromkeys(each.title or each.document_id for each in suspects))
        warning = (
            f"{len(suspects)} passages look like instructions to a model and count less: {names}."
        )
        if warning not in recorder.warnings:
            recorder.warn(WarningKind.INJECTION, warning)
    return judged
