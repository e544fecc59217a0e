"""When the answer to one question may be given to another, and whether two answers say the same.

An answer is tied to the passages it was made from. It may be given again only while each of them is
stored as it was, and to another question only where retrieval finds for that one what it cites.
"""

import re
import string
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from hashlib import blake2b

import orjson

from services.rag.core.answer import Answer, AnswerOrigin, EarlierQuestion
from services.rag.core.citations import Citation
from services.rag.core.conversation import Sampling, TokenUsage
from services.rag.core.filters import Access
from services.rag.core.options import Question
from services.rag.core.passages import Passage, PassageOrigin, RankedPassage
from services.rag.core.profile import DegradationReason
from services.rag.core.prompt import prompt_fingerprint
from services.rag.core.quality import Quality, degraded_score, is_good_enough
from services.rag.core.sentences import MARKER_PATTERN
from services.rag.core.verification import SentenceSupport

__all__ = [
    "Evidence",
    "ReusableAnswer",
    "Verdict",
    "access_fingerprint",
    "configuration_fingerprint",
    "evidence_of",
    "is_worth_keeping",
    "judge_answers",
    "judge_evidence",
    "question_digest",
    "says_the_same",
    "with_degradations",
]

# Share of the cited passages that retrieval must find for another question, and how far up: in a
# small collection every question finds everything, so that they are found says nothing.
_LEAST_OVERLAP_RATIO = 0.6
_PLACES_PER_CITED_PASSAGE = 2
_LEAST_PLACES = 3

_LEAST_SIMILARITY = 0.9
_WRITTEN = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS
_DIGEST_BYTES = 20

_MARKERS = re.compile(rf"\s*{MARKER_PATTERN}")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
# An answer that says that it is none, as the prompt asks for where the sources lack it.
_SOURCES = r"\b(?:sources?|passages?|documents?|context|text)\b"
_DO_NOT = r"\b(?:do|does|did|can) ?(?:not|n['\u2019]t)"
_REFUSAL = re.compile(
    rf"{_SOURCES}[^.!?]{{0,40}}{_DO_NOT} "
    r"(?:contain|say|mention|state|provide|include|specify|answer|give|have)\b"
    r"|\bI (?:do not|don['\u2019]t|can ?not|can['\u2019]t) (?:know|find|answer|determine|say)\b"
    rf"|\bno (?:information|answer|mention)\b[^.!?]{{0,30}}{_SOURCES}"
    r"|\b(?:can ?not|can['\u2019]t) be (?:answered|determined)\b",
    re.IGNORECASE,
)


class Verdict(Enum):
    """Whether an answer is an answer to the question asked."""

    RIGHT = "right"
    WRONG = "wrong"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Evidence:
    """A passage that an answer cites; the digest is that of its text with its header."""

    document_id: str
    passage_id: str
    content_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReusableAnswer:
    """A finished answer as it was kept for other questions.

    Attributes:
        text: The answer.
        citations: What it stands on.
        passages: What it was made from; the first has marker 1.
        warnings: What a careful reader should know of it.
        model: Full name of the model.
        finish_reason: Why the generation ended.
        usage: Tokens it cost.
        sentences: What checking it against its sources found.
        quality: How good it is; None where that was not kept.
        rewritten_query: The question as it was understood.
        expansions: Other wordings that were searched for as well.
    """

    text: str
    citations: tuple[Citation, ...]
    passages: tuple[RankedPassage, ...]
    warnings: tuple[str, ...]
    model: str
    finish_reason: str
    usage: TokenUsage
    sentences: tuple[SentenceSupport, ...] = ()
    quality: Quality | None = None
    rewritten_query: str = ""
    expansions: tuple[str, ...] = ()

    @property
    def chunk_ids(self) -> tuple[int, ...]:
        """The passages it was made from."""
        return tuple(each.ranking.chunk_id for each in self.passages)

    @property
    def cited_chunk_ids(self) -> frozenset[int]:
        """The passages it cites."""
        return frozenset(self.chunk_ids[each.passage_index] for each in self.citations)

    def recognized(self, found: Sequence[RankedPassage]) -> tuple[int, ...]:
        """Names what a search finds by the passages it was made from, as far as these overlap.

        A passage that was joined with its neighbours goes by the name of the best of them, which is
        another one for another question.

        Args:
            found: What a search finds, of the same documents as they are.
        """
        return tuple(self._recognized(each.passage) for each in found)

    def _recognized(self, passage: Passage) -> int:
        if passage.chunk_id in self.chunk_ids:
            return passage.chunk_id
        for each in self.passages:
            own = each.passage
            if (
                own.document_id == passage.document_id
                and own.char_start < passage.char_end
                and passage.char_start < own.char_end
            ):
                return each.ranking.chunk_id
        return passage.chunk_id

    def restore(
        self,
        question: Question,
        origin: AnswerOrigin,
        current: Mapping[int, Passage],
        earlier: EarlierQuestion | None = None,
    ) -> Answer | None:
        """Makes an answer of it.

        Args:
            question: What is asked now.
            origin: How the answer came about.
            current: Of the passages it was made from, those that are stored now.
            earlier: The question that it was found by; None where it was not found by one.

        Returns:
            The answer; None where a passage is gone, or there was none. Every version of a document
            has passages of its own, so whatever has become of the document since shows here.
        """
        passages = tuple(
            RankedPassage(_joined_again(passage, each.passage), each.ranking)
            for each in self.passages
            if (passage := current.get(each.ranking.chunk_id)) is not None
            and passage.text in each.passage.text
            and passage.collection == question.collection
        )
        if not passages or len(passages) < len(self.passages):
            return None
        return self._given(question, origin, passages, earlier)

    def shows(self, current: Mapping[int, Passage]) -> bool:
        """Says whether it shows its passages as they are stored now, all of which are.

        Args:
            current: The passages it was made from.
        """
        return all(
            _shown(_joined_again(current[each.ranking.chunk_id], each.passage))
            == _shown(each.passage)
            for each in self.passages
        )

    def restore_as_kept(
        self, question: Question, origin: AnswerOrigin, earlier: EarlierQuestion | None = None
    ) -> Answer:
        """Makes an answer of it with the passages as they were kept.

        For where they are known to be stored so, or nobody can know.

        Args:
            question: What is asked now.
            origin: How the answer came about.
            earlier: The question that it was found by; None where it was not found by one.
        """
        return self._given(question, origin, self.passages, earlier)

    def _given(
        self,
        question: Question,
        origin: AnswerOrigin,
        passages: tuple[RankedPassage, ...],
        earlier: EarlierQuestion | None,
    ) -> Answer:
        return Answer(
            text=self.text,
            citations=self.citations,
            passages=passages,
            origin=origin,
            mode=question.mode,
            model=self.model,
            finish_reason=self.finish_reason,
            usage=self.usage,
            earlier=earlier,
            sentences=self.sentences,
            quality=self.quality,
            rewritten_query=self.rewritten_query,
            expansions=self.expansions,
        )


def with_degradations(answer: Answer, reasons: Collection[DegradationReason]) -> Answer:
    """Lowers the quality of an answer that is given again by what went wrong in giving it."""
    if answer.quality is None or not reasons:
        return answer
    score = degraded_score(answer.quality.score, reasons)
    return replace(answer, quality=replace(answer.quality, score=score))


def is_worth_keeping(answer: Answer, *, reasons: Collection[DegradationReason]) -> bool:
    """Says whether an answer is good enough for others who ask the same.

    Args:
        answer: A finished answer.
        reasons: What on the way to it was not done as it should have been.
    """
    return (
        answer.quality is not None
        and is_good_enough(
            answer.quality.score, finish_reason=answer.finish_reason, reasons=reasons
        )
        and answer.origin in (AnswerOrigin.GENERATED, AnswerOrigin.CACHED)
        and bool(answer.citations)
        and all(each.passage.origin is PassageOrigin.CORPUS for each in answer.passages)
        and not _REFUSAL.search(answer.text)
    )


def evidence_of(answer: Answer) -> tuple[Evidence, ...]:
    """Returns the passages that an answer cites, each once, in the order of their markers."""
    cited = sorted({each.passage_index for each in answer.citations})
    passages = [answer.passages[index].passage for index in cited]
    return tuple(
        Evidence(each.document_id, str(each.chunk_id), _digest(each.header, each.text))
        for each in passages
    )


def judge_evidence(cited: Collection[int], found: Sequence[int]) -> Verdict:
    """Says whether what answers one question answers another, too.

    Args:
        cited: Passages that the answer to the one cites.
        found: Passages that retrieval finds for the other, best first.

    Returns:
        RIGHT where most of what is cited is among the best of what is found, WRONG where none of
        it is.
    """
    places = max(_LEAST_PLACES, _PLACES_PER_CITED_PASSAGE * len(cited))
    shared_count = len(set(cited) & set(found[:places]))
    if not shared_count:
        return Verdict.WRONG if cited else Verdict.UNDECIDED
    enough = shared_count / len(cited) >= _LEAST_OVERLAP_RATIO
    return Verdict.RIGHT if enough else Verdict.UNDECIDED


def access_fingerprint(collection: str, access: Access) -> str:
    """Names what a caller may see: a collection, and of it what is for everyone or names them."""
    principals = ("*",) if access.principals is None else access.principals
    return _digest("collection", collection, *principals)


def configuration_fingerprint(question: Question, sampling: Sampling) -> str:
    """Names how an answer is made, apart from the question and the models.

    Args:
        question: Its collection, mode, retrieval with filter, policies, form and history.
        sampling: How tokens are chosen, defaults filled in.
    """
    parts = [
        question.collection,
        question.mode,
        question.retrieval,
        question.answer_policy,
        question.web,
        question.output_format,
        question.history,
        sampling,
        prompt_fingerprint(),
    ]
    return _digest(orjson.dumps(parts, option=_WRITTEN, default=_plain).decode())


def question_digest(text: str) -> str:
    """Names a question, whatever its spaces and capitals; 40 hexadecimal digits."""
    return _digest("question", " ".join(text.split()).casefold())


def _plain(value: object) -> object:
    """Writes what JSON has no form for."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} cannot be written")


def says_the_same(first: str, second: str) -> bool:
    """Says whether two answers are the same but for markers, case, spacing and end marks."""
    return _normal_form(first) == _normal_form(second)


def judge_answers(
    first: tuple[str, Collection[int]], second: tuple[str, Collection[int]], *, similarity: float
) -> Verdict:
    """Says whether two answers in other words agree.

    Args:
        first: Text of an answer, and the passages it cites.
        second: The same of another.
        similarity: Cosine similarity of the texts.
    """
    numbers, other_numbers = _numbers(first[0]), _numbers(second[0])
    cited, other_cited = set(first[1]), set(second[1])
    if not cited & other_cited or (numbers - other_numbers and other_numbers - numbers):
        return Verdict.WRONG
    if cited == other_cited and numbers == other_numbers and similarity >= _LEAST_SIMILARITY:
        return Verdict.RIGHT
    return Verdict.UNDECIDED


def _joined_again(current: Passage, kept: Passage) -> Passage:
    """Returns a passage with what it was joined with, which is of the same document version."""
    if current.text == kept.text and not kept.injection_suspected:
        # It was joined with nothing, and stands where it stood: a version is never changed.
        return current
    return replace(
        current,
        text=kept.text,
        char_start=kept.char_start,
        char_end=kept.char_end,
        heading_path=kept.heading_path,
        page_start=kept.page_start,
        page_end=kept.page_end,
        injection_suspected=kept.injection_suspected,
    )


def _shown(passage: Passage) -> tuple[object, ...]:
    """Returns what those see of a passage to whom an answer is given that was made from it."""
    return (
        passage.document_id,
        passage.title,
        passage.source_uri,
        passage.heading_path,
        passage.text,
        passage.char_start,
        passage.char_end,
        passage.page_start,
        passage.page_end,
        passage.origin,
        passage.injection_suspected,
    )


def _normal_form(text: str) -> str:
    words = _MARKERS.sub("", unicodedata.normalize("NFC", text)).casefold().split()
    return " ".join(words).rstrip(string.punctuation + "。")


def _numbers(text: str) -> set[str]:
    return set(_NUMBER.findall(_MARKERS.sub("", text)))


def _digest(*parts: str) -> str:
    return blake2b("\0".join(parts).encode(), digest_size=_DIGEST_BYTES).hexdigest()
