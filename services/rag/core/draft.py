"""An answer while it is being written, and the answer that needs no model."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.rag.core.citations import Citation, CitationTracker, CitedSentence, cite
from services.rag.core.evidence import EvidenceIndex, Excerpt
from services.rag.core.guard import Guard
from services.rag.core.json_answers import cited_markers, parse_json, stated_values
from services.rag.core.passages import Passage, RankedPassage
from services.rag.core.quality import CheckedCitations
from services.rag.core.sentences import Span
from services.rag.core.verification import (
    ADDING_SUPPORT,
    PARTIAL_SUPPORT,
    Judgement,
    SentenceSupport,
    SupportStatus,
    Verification,
)

__all__ = ["Draft", "MeaningCheck", "extract_answer"]

EXTRACT_COUNT = 3
_LONGEST_EXTRACT = 600
_BETWEEN = "\n\n"
# Whether a sentence has ended shows in what follows: so many pieces of text after an end mark.
_CHANCES = 3
_SENTENCE_END = re.compile(r"[.!?\u2026\u3002\uff01\uff1f\n]")
_BEFORE_MARK = re.compile(r" (?=[.,;:!?])")
_NOTHING_FITS = "None of the sentences found answers the question; see the passages."


@dataclass(frozen=True, slots=True)
class MeaningCheck:
    """Two texts whose likeness in meaning says how well a sentence is supported."""

    sentence_index: int
    statement: str
    window: str


@dataclass(slots=True)
class _Checked:
    sentence: CitedSentence
    judgement: Judgement
    citation_added: bool = False


class Draft:
    """The text, the citations and the checks of an answer so far.

    What the model says is fed in as it comes, and what may be shown comes back. Completed sentences
    wait until `judge` is called, which is the work that takes time.

    Args:
        passages: What the answer is made from; the first has marker 1.
        guard: Filters the model's words; None lets all through.
        is_json: Whether the answer is JSON, which is checked as a whole at its end.

    Attributes:
        passages: See above.
        citations: Those found so far.
        raw: What the model has said so far.
        text: What of it may be shown.
    """

    def __init__(
        self,
        passages: Sequence[RankedPassage],
        *,
        guard: Guard | None = None,
        is_json: bool = False,
    ) -> None:
        self.passages = tuple(passages)
        self.citations: list[Citation] = []
        self.raw = ""
        self.text = ""
        self.guard = guard
        self.is_json = is_json
        self._tracker = CitationTracker([each.passage for each in passages])
        self._verification = Verification(
            [each.passage.text for each in passages],
            [each.passage.header for each in passages],
            self._tracker.evidence,
        )
        self._unjudged: list[str] = []
        self._checked: list[_Checked] = []
        self._taken_count = 0
        self._chances = 0
        self._has_ended = False

    @property
    def unknown_marker_count(self) -> int:
        """How often the text so far cites a passage that there is not."""
        return self._tracker.unknown_marker_count if self.passages else 0

    @property
    def sentences(self) -> tuple[SentenceSupport, ...]:
        """What checking the sentences so far has found."""
        return tuple(map(_support_of, self._checked))

    @property
    def may_judge(self) -> bool:
        """Whether `judge` may find anything: a sentence may have ended."""
        return bool(self.passages) and self._chances > 0 and bool(self._unjudged)

    @property
    def has_whole_sentence(self) -> bool:
        """Whether one sentence at least was complete before the text ended."""
        return bool(self._checked) and not self.is_json

    def append(self, text: str) -> str:
        """Takes what the model says next, and returns what of all may be shown now."""
        self.raw += text
        return self._show(text if self.guard is None else self.guard.feed(text))

    def finish(self) -> str:
        """Returns what was held back; the text is complete."""
        self._has_ended = True
        return self._show("" if self.guard is None else self.guard.finish())

    def judge(self) -> list[Citation]:
        """Returns the citations of the sentences that are complete, and checks these.

        Must run in one thread at a time; takes milliseconds for a sentence.
        """
        if not self.passages:
            return []
        if self.is_json:
            return self._judge_json() if self._has_ended else []
        unjudged, self._unjudged = self._unjudged, []
        found = self._tracker.feed("".join(unjudged))
        if self._has_ended:
            found += self._tracker.finish()
        sentences = self._tracker.sentences[self._taken_count :]
        self._taken_count += len(sentences)
        self._chances = 0 if sentences else self._chances - 1
        for each in sentences:
            self._check(each)
            if self._checked[-1].citation_added:
                found.append(self._added_citation(self._checked[-1]))
        found.sort(key=lambda each: each.answer_char_end)
        self.citations += found
        return found

    def meaning_checks(self) -> list[MeaningCheck]:
        """Returns what is to be compared in meaning for `judge_meaning`."""
        return [
            MeaningCheck(
                index,
                _BEFORE_MARK.sub("", " ".join(each.sentence.statement.split())),
                self._verification.window_text(best),
            )
            for index, each in enumerate(self._checked)
            if (best := each.judgement.best) is not None
            and each.judgement.status is not SupportStatus.NO_CLAIM
        ]

    def judge_meaning(self, similarities: dict[int, float]) -> list[Citation]:
        """Judges the sentences anew by meaning, too.

        Args:
            similarities: Cosine similarities by `MeaningCheck.sentence_index`.

        Returns:
            The citations that this adds.
        """
        added: list[Citation] = []
        for index, similarity in similarities.items():
            checked = self._checked[index]
            checked.judgement = checked.judgement.with_meaning(similarity)
            was_added = checked.citation_added
            checked.citation_added = self._may_add(checked)
            if checked.citation_added and not was_added:
                added.append(self._added_citation(checked))
            elif was_added and not checked.citation_added:
                # What was shown is not taken back.
                checked.citation_added = True
        self.citations += added
        return added

    def checked_citations(self) -> CheckedCitations:
        """Counts the citations and those that hold."""
        pairs = supported = cited_claims = 0
        for each in self._checked:
            if each.judgement.status is SupportStatus.NO_CLAIM:
                continue
            markers = each.sentence.markers
            cited_claims += bool(markers) or each.citation_added
            pairs += len(markers) or int(each.citation_added)
            if each.judgement.status in (SupportStatus.SUPPORTED, SupportStatus.PARTIAL):
                supported += _holding_count(each)
        return CheckedCitations(
            citation_count=pairs, supported_count=supported, cited_claim_count=cited_claims
        )

    def _show(self, text: str) -> str:
        self.text += text
        if text and not self.is_json:
            self._unjudged.append(text)
            if _SENTENCE_END.search(text):
                self._chances = _CHANCES
        return text

    def _check(self, sentence: CitedSentence) -> None:
        if sentence.continues and self._checked:
            before = self._checked.pop()
            markers = dict.fromkeys((*before.sentence.markers, *sentence.markers))
            sentence = replace(
                sentence, markers=tuple(markers), statement=before.sentence.statement
            )
        # Code and headings are known by what they begin with.
        shown = sentence.text if not sentence.continues else sentence.statement
        judgement = (
            self._verification.judge(sentence.statement, sentence.markers)
            if not shown.lstrip().startswith(("```", "~~~"))
            else Judgement(status=SupportStatus.NO_CLAIM)
        )
        checked = _Checked(sentence, judgement)
        checked.citation_added = self._may_add(checked)
        self._checked.append(checked)

    def _may_add(self, checked: _Checked) -> bool:
        judgement = checked.judgement
        return (
            not checked.sentence.markers
            and judgement.best is not None
            and judgement.status is SupportStatus.SUPPORTED
            and judgement.support >= ADDING_SUPPORT
        )

    def _added_citation(self, checked: _Checked) -> Citation:
        best = checked.judgement.best
        assert best is not None  # noqa: S101 - checked by `_may_add`
        return self._citation(checked.sentence, best)

    def _citation(self, sentence: CitedSentence, excerpt: Excerpt) -> Citation:
        passage = self.passages[excerpt.passage_index].passage
        return cite(passage, excerpt, Span(sentence.answer_char_start, sentence.answer_char_end))

    def _judge_json(self) -> list[Citation]:
        """Checks an answer in JSON as one sentence, with the sources that it lists."""
        if self._checked:
            return []
        try:
            value = parse_json(self.text)
        except ValueError:
            return []
        markers = tuple(each for each in cited_markers(value) if 1 <= each <= len(self.passages))
        sentence = CitedSentence(
            answer_char_start=0,
            answer_char_end=len(self.text),
            text=self.text,
            statement=". ".join(stated_values(value)),
            markers=markers,
            continues=False,
        )
        judgement = self._verification.judge(sentence.statement, markers)
        self._checked.append(_Checked(sentence, judgement))
        found = [
            self._citation(
                sentence, self._tracker.evidence.best_span(sentence.statement, marker - 1)
            )
            for marker in markers
        ]
        self.citations += found
        return found


def _support_of(checked: _Checked) -> SentenceSupport:
    judgement, sentence = checked.judgement, checked.sentence
    best = judgement.best
    return SentenceSupport(
        answer_char_start=sentence.answer_char_start,
        answer_char_end=sentence.answer_char_end,
        status=judgement.status,
        support=judgement.support,
        marker=best.passage_index + 1 if best is not None and judgement.support > 0 else 0,
        citation_added=checked.citation_added,
        unfounded=judgement.unfounded,
    )


def _holding_count(checked: _Checked) -> int:
    """Counts the cited passages that support a sentence, alone or as one of several."""
    markers = checked.sentence.markers
    if len(markers) <= 1:
        return len(markers) or int(checked.citation_added)
    shares = dict(checked.judgement.by_marker)
    return sum(shares.get(marker, 0.0) >= PARTIAL_SUPPORT / len(markers) for marker in markers)


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
    paragraph = f"{' '.join(quote.split())} [{excerpt.passage_index + 1}]"
    span = Span(answer_char_start, answer_char_start + len(paragraph))
    return paragraph, cite(passage, replace(excerpt, char_end=char_end, support=1.0), span)
