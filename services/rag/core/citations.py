"""The citations of an answer, found by its markers and checked against the passages' texts.

A marker such as `[2]` cites the second passage for the sentence that it stands in. The quote is the
stretch of that passage which supports the sentence best; its offsets are those of the document's
stored text, so the quote can be shown in place.
"""

import re
import string
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from services.rag.core.evidence import EvidenceIndex, Excerpt
from services.rag.core.passages import Passage
from services.rag.core.sentences import MARKER_PATTERN, Sentence, SentenceCutter, Span

__all__ = ["Citation", "CitationTracker", "CitedSentence", "cite", "find_markers"]

_MARKER = re.compile(MARKER_PATTERN)
_NUMBER = re.compile(r"\d+")
_CODE = re.compile(r"(?:```|~~~).*|`[^`\n]*`", re.DOTALL)
_WORD = re.compile(r"\w")
# What adds nothing to a statement at its end.
_EMPTY = f"{string.whitespace}{string.punctuation}。"


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """One passage cited for one sentence of an answer.

    Attributes:
        marker: The number in the answer, from 1.
        passage_index: Place of the passage among those given, from 0.
        answer_char_start: First character of the cited sentence in the answer.
        answer_char_end: One past its last character.
        quote_char_start: First character of the quote in the document's stored text.
        quote_char_end: One past its last character.
        quote: Exactly that stretch of the stored text.
        support: Share of the sentence's terms that the quote holds, 0 to 1.
        page_start: First page of the chunks that hold the quote, from 1; 0 without pages.
        page_end: Last page of them.
    """

    marker: int
    passage_index: int
    answer_char_start: int
    answer_char_end: int
    quote_char_start: int
    quote_char_end: int
    quote: str
    support: float
    page_start: int = 0
    page_end: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CitedSentence:
    """A complete sentence of an answer.

    Attributes:
        answer_char_start: First character in the answer.
        answer_char_end: One past its last character.
        text: As it stands in the answer.
        statement: What it says, without markers.
        markers: The passages it cites, from 1, as far as there are such.
        continues: Whether it is the sentence before, which only now has its markers.
    """

    answer_char_start: int
    answer_char_end: int
    text: str
    statement: str
    markers: tuple[int, ...]
    continues: bool


def find_markers(text: str) -> list[int]:
    """Returns the distinct numbers of the markers in a text, in order, leaving out code."""
    prose = _CODE.sub(lambda code: " " * len(code[0]), text)
    numbers = (
        int(number) for marker in _MARKER.findall(prose) for number in _NUMBER.findall(marker)
    )
    return list(dict.fromkeys(numbers))


class CitationTracker:
    """Finds the citations of an answer while it is being written.

    A sentence is judged when enough of what follows it is known to say that it has ended. However
    the answer is cut into pieces, the citations are the same, and the work is linear in its length.

    Args:
        passages: What the answer was made from; the first has marker 1.

    Attributes:
        evidence: The sentences of the passages.
        sentences: The sentences of the answer that are complete.
    """

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._passages = tuple(passages)
        self.evidence = EvidenceIndex([passage.text for passage in passages])
        self.sentences: list[CitedSentence] = []
        self._cutter = SentenceCutter()
        # The last sentence so far: where it starts, and what it says.
        self._previous: tuple[int, str] | None = None
        self._unknown_marker_count = 0

    @property
    def unknown_marker_count(self) -> int:
        """How often a sentence so far cited a passage that there is not."""
        return self._unknown_marker_count

    def feed(self, text: str) -> list[Citation]:
        """Adds to the answer, and returns the citations of the sentences that this completes."""
        return self._cite_all(self._cutter.feed(text))

    def finish(self) -> list[Citation]:
        """Returns the citations of what is left; the answer is complete."""
        return self._cite_all(self._cutter.finish())

    def _cite_all(self, sentences: Iterable[Sentence]) -> list[Citation]:
        return [citation for sentence in sentences for citation in self._cite(sentence)]

    def _cite(self, sentence: Sentence) -> Iterator[Citation]:
        start, end = sentence.span
        markers = find_markers(sentence.text)
        statement = _MARKER.sub(" ", sentence.text)
        continues = bool(markers and self._previous and not _WORD.search(statement))
        if continues and self._previous is not None:
            # Markers on a line of their own belong to what stands before.
            start, before = self._previous
            statement = f"{before} {statement.strip(_EMPTY)}".rstrip()
        self._previous = start, statement
        self.sentences.append(
            CitedSentence(
                answer_char_start=start,
                answer_char_end=end,
                text=sentence.text,
                statement=statement,
                markers=tuple(each for each in markers if 1 <= each <= len(self._passages)),
                continues=continues,
            )
        )
        for marker in markers:
            if 1 <= marker <= len(self._passages):
                yield self._citation(marker, Span(start, end), statement)
            else:
                self._unknown_marker_count += 1

    def _citation(self, marker: int, sentence: Span, statement: str) -> Citation:
        passage = self._passages[marker - 1]
        excerpt = self.evidence.best_span(statement, marker - 1)
        return cite(passage, excerpt, sentence)


def cite(passage: Passage, excerpt: Excerpt, sentence: Span) -> Citation:
    """Cites a stretch of a passage for a stretch of an answer."""
    quote_char_start = passage.char_start + excerpt.char_start
    quote_char_end = passage.char_start + excerpt.char_end
    page_start, page_end = passage.pages_of(quote_char_start, quote_char_end)
    return Citation(
        marker=excerpt.passage_index + 1,
        passage_index=excerpt.passage_index,
        answer_char_start=sentence.char_start,
        answer_char_end=sentence.char_end,
        quote_char_start=quote_char_start,
        quote_char_end=quote_char_end,
        quote=passage.text[excerpt.char_start : excerpt.char_end],
        support=excerpt.support,
        page_start=page_start,
        page_end=page_end,
    )
