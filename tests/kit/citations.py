"""Citations of answers that are complete."""

from collections.abc import Sequence

from services.rag.core.citations import Citation, CitationTracker
from services.rag.core.passages import Passage

__all__ = ["cite_answer"]


def cite_answer(answer: str, passages: Sequence[Passage]) -> tuple[tuple[Citation, ...], int]:
    """Returns the citations of a complete answer, and the number of unknown markers."""
    tracker = CitationTracker(passages)
    citations = [*tracker.feed(answer), *tracker.finish()]
    return tuple(citations), tracker.unknown_marker_count
