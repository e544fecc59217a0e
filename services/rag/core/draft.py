"""An answer while it is being written, and the answer that needs no model."""

from collections.abc import Sequence

from services.rag.core.citations import Citation, CitationTracker
from services.rag.core.evidence import EvidenceIndex, Excerpt
from services.rag.core.model import Passage, RankedPassage

__all__ = ["Draft", "extract_answer"]

EXTRACT_COUNT = 3
_LONGEST_EXTRACT = 600
_BETWEEN = "\n\n"
_NOTHING_FITS = "None of the sentences found answers the question; see the passages."


class Draft:
    """The text and the citations of an answer so far.

    Args:
        passages: What the answer is made from; the first has marker 1.
    """

    def __init__(self, passages: Sequence[RankedPassage]) -> None:
        self.passages = tuple(passages)
        self.citations: list[Citation] = []
        self._parts: list[str] = []
        self._tracker = CitationTracker([each.passage for each in passages])

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._parts)

    @property
    def unknown_marker_count(self) -> int:
        """How often the text so far cites a passage that there is not."""
        return self._tracker.unknown_marker_count if self.passages else 0

    def append(self, text: str) -> list[Citation]:
        """Adds text; returns the citations of sentences that are complete now."""
        self._parts.append(text)
        return self._keep(self._tracker.feed(text)) if self.passages else []

    def finish(self) -> list[Citation]:
        """Returns the citations of the last sentence; the text is complete."""
        return self._keep(self._tracker.finish()) if self.passages else []

    def _keep(self, citations: list[Citation]) -> list[Citation]:
        self.citations += citations
        return citations


def extract_answer(
    question: str, passages: Sequence[RankedPassage]
) -> tuple[str, tuple[Citation, ...]]:
    """Answers a question with sentences of its sources.

    Args:
        question: The question.
        passages: The sources, at least one; the first has marker 1.

    Returns:
        The text and its citations, each of which quotes what the text repeats.
    """
    index = EvidenceIndex([each.passage.text for each in passages])
    paragraphs: list[str] = []
    citations: list[Citation] = []
    position = 0
    for excerpt in index.select(question, EXTRACT_COUNT):
        passage = passages[excerpt.passage_index].passage
        paragraph, citation = _cite(excerpt, passage, position)
        paragraphs.append(paragraph)
        citations.append(citation)
        position += len(paragraph) + len(_BETWEEN)
    return _BETWEEN.join(paragraphs) or _NOTHING_FITS, tuple(citations)


def _cite(excerpt: Excerpt, passage: Passage, answer_char_start: int) -> tuple[str, Citation]:
    char_end = min(excerpt.char_end, excerpt.char_start + _LONGEST_EXTRACT)
    quote = passage.text[excerpt.char_start : char_end]
    marker = excerpt.passage_index + 1
    paragraph = f"{' '.join(quote.split())} [{marker}]"
    return paragraph, Citation(
        marker=marker,
        passage_index=excerpt.passage_index,
        answer_char_start=answer_char_start,
        answer_char_end=answer_char_start + len(paragraph),
        quote_char_start=passage.char_start + excerpt.char_start,
        quote_char_end=passage.char_start + char_end,
        quote=quote,
        support=1.0,
    )
