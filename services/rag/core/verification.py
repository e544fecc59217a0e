"""How well each sentence of an answer stands on the sources, without asking a second model.

Support is 0.45 of the idf-weighted share of the sentence's terms that the best window of a source
holds, and 0.55 of the cosine similarity of sentence and window; without vectors it is that share
alone. Hard checks go before it: a number, date, version, quote or name that no cited source holds
is made up, however well the rest fits. The check knows neither order nor logic: a sentence that
swaps the roles of two things of one source passes.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache

from services.rag.core.analysis import analyse_query
from services.rag.core.claims import Facts, Quantity, facts_of, fold, quantities_of
from services.rag.core.evidence import EvidenceIndex, Excerpt
from services.rag.core.polarity import clauses_of, contradicts

__all__ = [
    "ADDING_SUPPORT",
    "PARTIAL_SUPPORT",
    "SUPPORTED_SUPPORT",
    "Judgement",
    "SentenceSupport",
    "SupportStatus",
    "Verification",
    "is_claim",
]

SUPPORTED_SUPPORT = 0.6
PARTIAL_SUPPORT = 0.4
ADDING_SUPPORT = 0.63
"""From here on a citation is added that the model has left out."""

_COVERAGE_WEIGHT = 0.45
_MEANING_WEIGHT = 0.55
_CONTRADICTION_COST = 0.3
# So many sources are looked at for a sentence that cites none.
_UNCITED_COUNT = 2
# What a second source must add to count beside the best one.
_LEAST_GAIN = 0.1
_LEAST_WORDS = 2
_MOST_KNOWN_HEADERS = 512
# Share of the clauses with a word that must hold another number before this number is doubted.
_RIVAL_RATIO = 0.5

_SENTENCE_BREAK = re.compile(r"(?<=[.!?\u3002])\s+|\n\s*\n")
_QUESTION = re.compile(r"[?\uff1f\u061f][\"'\u201d\u00bb)\]*_]*\s*$")
_CODE_LINE = re.compile(r"\s*(?:```|~~~|>>> |\.\.\. |\$ |#!|@\w+\s*$)")
_HEADING = re.compile(r"\s*(?:#{1,6}\s|[-=_*|:\s]+$|\*\*[^*]+\*\*:?\s*$)")
_TALK = re.compile(
    r"\s*(?:sure|certainly|of course|okay|ok|hello|hi|hey|great question|thank(?:s| you)|"
    r"you(?:'re| are) welcome|i hope|let me know|feel free|please (?:let|ask|note that i)|"
    r"here (?:is|are|'s)|in (?:summary|conclusion)[,:]?\s*$|i(?:'m| am) (?:sorry|happy|glad|an ai)|"
    r"sorry|hallo|guten tag|gerne|bonjour|bien s\u00fbr|hola|claro|ciao|certo)\b",
    re.IGNORECASE,
)
_SOURCES = r"\b(?:sources?|passages?|documents?|context|documentation|texts?|quellen?|dokumente?)\b"
_ABSENCE = re.compile(
    rf"{_SOURCES}[^.!?]{{0,60}}\b(?:do|does|did|can) ?(?:not|n['\u2019]t)\b|"
    rf"\b(?:no|not any|nothing)\b[^.!?]{{0,60}}\b(?:in|from|by) (?:the |these |any )?{_SOURCES}|"
    rf"\bi (?:do not|don['\u2019]t|can ?not|can['\u2019]t) (?:know|find|answer|determine|say)\b|"
    rf"\b(?:can ?not|can['\u2019]t) be (?:answered|determined)\b|"
    rf"\b(?:is|are) not (?:mentioned|stated|specified|provided|given|described)\b|"
    rf"\bquellen\b[^.!?]{{0,40}}\b(?:nicht|keine?)\b",
    re.IGNORECASE,
)


class SupportStatus(Enum):
    """What became of checking a sentence; the values label metrics."""

    SUPPORTED = "supported"
    PARTIAL = "partial"
    UNSUPPORTED = "unsupported"
    NUMBER_MISMATCH = "number_mismatch"
    NO_CLAIM = "no_claim"


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceSupport:
    """How well one sentence of an answer stands on the sources.

    Attributes:
        answer_char_start: First character of the sentence in the answer.
        answer_char_end: One past its last character.
        status: What was found.
        support: How well the best source supports it, 0 to 1.
        marker: Number of the passage that supports it best, from 1; 0 where none does.
        citation_added: Whether the citation was added since the model had left it out.
        unfounded: Numbers, dates, names and quotes of it that the sources do not contain.
    """

    answer_char_start: int
    answer_char_end: int
    status: SupportStatus
    support: float = 0.0
    marker: int = 0
    citation_added: bool = False
    unfounded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What checking a statement found.

    Attributes:
        status: What became of it.
        support: How well the best source supports it, 0 to 1.
        best: The window that supports it best; None where nothing was looked for.
        coverage: Share of its terms that the sources hold, 0 to 1.
        unfounded: Its numbers, names and quotes that the sources do not contain.
        by_marker: Share of its terms that each cited passage holds by itself, by marker.
        is_contradicted: Whether it says yes where the window says no, or the reverse.
        is_displaced: Whether a number stands in the source, but with something else.
        has_wrong_number: Whether a number is among what the sources do not contain.
    """

    status: SupportStatus
    support: float = 0.0
    best: Excerpt | None = None
    coverage: float = 0.0
    unfounded: tuple[str, ...] = ()
    by_marker: tuple[tuple[int, float], ...] = ()
    is_contradicted: bool = False
    is_displaced: bool = False
    has_wrong_number: bool = False

    def with_meaning(self, similarity: float) -> "Judgement":
        """Judges anew, knowing the cosine similarity of statement and best window."""
        if self.status is SupportStatus.NO_CLAIM:
            return self
        support = _COVERAGE_WEIGHT * self.coverage + _MEANING_WEIGHT * max(0.0, similarity)
        return _concluded(self, support)


_NO_CLAIM = Judgement(status=SupportStatus.NO_CLAIM)


def is_claim(sentence: str) -> bool:
    """Says whether a sentence states something that sources could confirm.

    Questions, greetings, headings, code and the statement that the sources do not hold the answer
    are none.
    """
    text = sentence.strip()
    return bool(text) and not (
        _QUESTION.search(text)
        or _CODE_LINE.match(text)
        or _HEADING.match(text)
        or text.endswith(":")
        or _TALK.match(text)
        or _ABSENCE.search(text)
    )


@lru_cache(maxsize=_MOST_KNOWN_HEADERS)
def _terms_of(header: str) -> frozenset[str]:
    return frozenset(analyse_query(header))


class Verification:
    """Checks statements against passages.

    Args:
        texts: The passages' texts; the first has marker 1.
        headers: Their titles and headings, which count as said.
        evidence: Their sentences.
    """

    def __init__(
        self, texts: Sequence[str], headers: Sequence[str], evidence: EvidenceIndex
    ) -> None:
        self._texts = tuple(
            f"{header}\n{text}" if header else text
            for header, text in zip(headers, texts, strict=True)
        )
        self._plain_texts = tuple(texts)
        self._headers = tuple(headers)
        self._evidence = evidence
        self._folded: dict[int, str] = {}
        self._numbered_clauses: dict[int, tuple[_Clause, ...]] = {}

    def judge(self, statement: str, markers: Sequence[int]) -> Judgement:
        """Checks a statement by its words.

        Args:
            statement: A sentence without its citation markers.
            markers: The passages that it cites, from 1; where it cites none, those count that
                hold most of it.
        """
        if not self._texts or not is_claim(statement):
            return _NO_CLAIM
        quantities = quantities_of(statement)
        if not quantities and len(analyse_query(statement)) < _LEAST_WORDS:
            return _NO_CLAIM
        cited = list(dict.fromkeys(marker - 1 for marker in markers))
        quoted = self._quoted(statement, cited or range(len(self._texts)))
        if quoted is not None and len(cited) <= 1:
            return quoted
        excerpts = [
            self._evidence.best_span(statement, index) for index in cited or range(len(self._texts))
        ]
        # Numbers are checked by value, which their wording says nothing of.
        words = _without(statement, quantities) if quantities else statement
        words = words if analyse_query(words) else statement
        own = [self._covered(words, [each]) for each in excerpts]
        ranked = sorted(range(len(excerpts)), key=lambda place: -own[place])
        if not cited:
            ranked = self._with_needed(words, excerpts, ranked)
        chosen = [excerpts[place] for place in ranked]
        best = chosen[0]
        found = Judgement(
            status=SupportStatus.UNSUPPORTED,
            best=best,
            coverage=self._covered(words, chosen),
            by_marker=tuple(
                (excerpts[place].passage_index + 1, own[place]) for place in sorted(ranked)
            ),
            is_contradicted=any(contradicts(statement, self._window(each)) for each in chosen[:1]),
        )
        found = self._with_facts(found, statement, [each.passage_index for each in chosen])
        return _concluded(found, found.coverage)

    def window_text(self, excerpt: Excerpt) -> str:
        """Returns the text of a window."""
        return self._window(excerpt)

    def _quoted(self, statement: str, indexes: Iterable[int]) -> Judgement | None:
        """Judges a statement that is nothing but whole sentences of a source."""
        for index in indexes:
            excerpt = self._evidence.repeated(statement, index)
            if excerpt is not None:
                return Judgement(
                    status=SupportStatus.SUPPORTED,
                    support=1.0,
                    best=excerpt,
                    coverage=1.0,
                    by_marker=((index + 1, 1.0),),
                )
        return None

    def _header_terms(self, indexes: Iterable[int]) -> frozenset[str]:
        return frozenset().union(*(_terms_of(self._headers[index]) for index in indexes))

    def _window(self, excerpt: Excerpt) -> str:
        return self._plain_texts[excerpt.passage_index][excerpt.char_start : excerpt.char_end]

    def _covered(self, statement: str, excerpts: Sequence[Excerpt]) -> float:
        headers = self._header_terms(each.passage_index for each in excerpts)
        return self._evidence.joint_support(statement, excerpts, also=headers)

    def _with_needed(
        self, statement: str, excerpts: Sequence[Excerpt], ranked: Sequence[int]
    ) -> list[int]:
        """Chooses the best source of a sentence that cites none, and one more where that helps."""
        first = ranked[0]
        least = max(SUPPORTED_SUPPORT, self._covered(statement, [excerpts[first]]) + _LEAST_GAIN)
        for other in ranked[1 : 1 + _UNCITED_COUNT]:
            if self._covered(statement, [excerpts[first], excerpts[other]]) >= least:
                return [first, other]
        return [first]

    def _with_facts(self, found: Judgement, statement: str, indexes: Sequence[int]) -> Judgement:
        facts = facts_of(statement)
        wrong = [each for each in facts.quantities if not self._occurs(each, indexes)]
        missing = [each.text for each in wrong]
        missing += self._missing_texts(facts, indexes)
        return replace(
            found,
            unfounded=tuple(dict.fromkeys(missing)),
            has_wrong_number=bool(wrong),
            is_displaced=bool(facts.quantities)
            and not wrong
            and self._is_displaced(statement, indexes),
        )

    def _occurs(self, quantity: Quantity, indexes: Iterable[int]) -> bool:
        return any(
            quantity.agrees(each) for index in indexes for each in quantities_of(self._texts[index])
        )

    def _missing_texts(self, facts: Facts, indexes: Sequence[int]) -> list[str]:
        said = " ".join(self._fold(index) for index in indexes)
        quotes = [each for each in facts.quotes if fold(each).strip(".,;:!?()") not in said]
        quoted = " ".join(facts.quotes)
        names = [
            each.text
            for each in facts.names
            if each.text not in quoted and not _is_named(each.text, said)
        ]
        return [*quotes, *names]

    def _fold(self, index: int) -> str:
        folded = self._folded.get(index)
        if folded is None:
            folded = self._folded[index] = fold(self._texts[index])
        return folded

    def _is_displaced(self, statement: str, indexes: Sequence[int]) -> bool:
        """Says whether a number stands in the sources, but with something else.

        That is where a term of the number's clause is found in the sources together with other
        numbers that measure the same, and nowhere with this one.
        """
        sources = [each for index in indexes for each in self._clauses(index)]
        headers = self._header_terms(indexes)
        for clause in _numbered(clauses_of(statement)):
            for quantity in clause.quantities:
                for term in clause.terms - headers:
                    holders = [each for each in sources if term in each.terms]
                    rivals = sum(each.rivals(quantity) for each in holders)
                    agreeing = any(each.holds(quantity) for each in holders)
                    if rivals and not agreeing and rivals >= _RIVAL_RATIO * len(holders):
                        return True
        return False

    def _clauses(self, index: int) -> tuple["_Clause", ...]:
        clauses = self._numbered_clauses.get(index)
        if clauses is None:
            text = self._plain_texts[index]
            clauses = tuple(
                clause
                for sentence in _SENTENCE_BREAK.split(text)
                for clause in _carried(_numbered(clauses_of(sentence)))
            )
            self._numbered_clauses[index] = clauses
        return clauses


@dataclass(frozen=True, slots=True)
class _Clause:
    """A clause without its numbers; the head is what stands before the first of them."""

    terms: frozenset[str]
    head: frozenset[str]
    quantities: tuple[Quantity, ...]

    def rivals(self, quantity: Quantity) -> bool:
        """Says whether it holds other numbers of the kind, and not this one."""
        return not self.holds(quantity) and any(map(quantity.is_comparable, self.quantities))

    def holds(self, quantity: Quantity) -> bool:
        """Says whether it holds this number."""
        return any(map(quantity.agrees, self.quantities))


def _numbered(clauses: Iterable[str]) -> Iterator[_Clause]:
    for each in clauses:
        quantities = quantities_of(each)
        head = _words(each[: quantities[0].char_start]) if quantities else frozenset[str]()
        yield _Clause(_words(_without(each, quantities)), head, quantities)


def _carried(clauses: Iterable[_Clause]) -> Iterator[_Clause]:
    """Lets later clauses of a sentence have what its first number is said of."""
    head = frozenset[str]()
    for each in clauses:
        yield replace(each, terms=each.terms | head)
        head = head or each.head


def _without(text: str, quantities: Sequence[Quantity]) -> str:
    for quantity in reversed(quantities):
        text = f"{text[: quantity.char_start]} {text[quantity.char_end :]}"
    return text


def _words(text: str) -> frozenset[str]:
    return frozenset(term for term in analyse_query(text) if not term[0].isdigit())


def _is_named(name: str, said: str) -> bool:
    folded = fold(name).removesuffix("()")
    if folded in said:
        return True
    words = [each.strip(".'").removesuffix("'s") for each in folded.split()]
    if len(words) == 1:
        words = [words[0].removesuffix("s")]
    return all(
        re.search(rf"(?<!\w){re.escape(each)}", said) is not None for each in words if len(each) > 1
    )


def _concluded(found: Judgement, support: float) -> Judgement:
    """Says what follows from a support and the hard checks."""
    if found.is_contradicted:
        support -= _CONTRADICTION_COST
    support = min(1.0, max(0.0, support))
    doubted = bool(found.unfounded) or found.is_displaced or found.is_contradicted
    if found.has_wrong_number:
        status = SupportStatus.NUMBER_MISMATCH
    elif support >= SUPPORTED_SUPPORT and not doubted:
        status = SupportStatus.SUPPORTED
    elif support >= PARTIAL_SUPPORT:
        status = SupportStatus.PARTIAL
    else:
        status = SupportStatus.UNSUPPORTED
    return replace(found, status=status, support=support)
