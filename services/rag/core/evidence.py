"""Which sentences of the passages support a statement.

Support is the share of a statement's terms that a stretch of text holds, each term weighted by how
telling it is among the sentences of the best passages. It needs no model and takes no notice of
order or negation, so it says that the words are there, not that the statement follows.
"""

import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise

from services.rag.core.analysis import analyse_query
from services.rag.core.bm25 import inverse_document_frequency
from services.rag.core.sentences import Span, segment_sentences

__all__ = ["EvidenceIndex", "Excerpt"]

# How much support a second sentence must add to be quoted too.
_MIN_GAIN = 0.1
# Two sentences that share more of their terms than this say the same.
_SAME_RATIO = 0.8
# A sentence with fewer terms, or without an end mark, is likely to be a heading or a fragment.
_FEW_TERMS = 4
_FRAGMENT_FACTOR = 0.5
# What one place further down among the passages costs.
_RANK_DISCOUNT = 0.1
# How far a sentence is judged by what it adds to those already chosen.
_NOVELTY_WEIGHT = 0.5

# The weights come from the best passages, so many and of together about so many characters. More
# would change them little, and each costs as much to analyse as one that is cited.
_WEIGHED_COUNT = 16
_WEIGHED_CHARACTERS = 6000
# The same passages answer many questions. Some 12 kB for each of usual length.
_MOST_KNOWN_TEXTS = 1024

_DECORATION = re.compile(r"[\s|>]*")
_WORD_OR_SIGN = re.compile(r"\w+(?:[.,:]\w+)*|[^\w\s|.,;:!?]|!(?=[^\s!?])")
_COMPLETE = re.compile(r"[.!?…。！？｡][\"'”’)\]*_`」』]*$")  # noqa: RUF001


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """A stretch of a passage that supports something.

    Attributes:
        passage_index: Place of the passage among those given, from 0.
        char_start: First character, in the passage's text.
        char_end: One past the last character.
        support: 0 (no term in common) to 1 (all terms found).
    """

    passage_index: int
    char_start: int
    char_end: int
    support: float


@dataclass(frozen=True, slots=True)
class _Sentence:
    passage_index: int
    span: Span
    terms: frozenset[str]


class EvidenceIndex:
    """The sentences of some passages, each analysed once, when first needed.

    The terms are weighted by the best passages only; `analyse_next` can do that work ahead, a part
    at a time.

    Args:
        texts: The passages' texts, best first.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = tuple(texts)
        self._analysed: dict[int, tuple[_Sentence, ...]] = {}
        self._sayings: dict[tuple[int, Span], tuple[str, ...]] = {}
        self._unweighed = deque(_weighed(self._texts))
        self._sentence_count = 0
        self._frequencies: Counter[str] = Counter()
        self._weights: dict[str, float] = {}
        self._last_wanted = "", frozenset[str]()
        self._last_spans: dict[int, Excerpt] = {}

    def analyse_next(self) -> None:
        """Analyses one more passage of those that the weights come from, if one is left."""
        if self._unweighed:
            sentences = self._sentences(self._unweighed.popleft())
            self._sentence_count += len(sentences)
            self._frequencies.update(chain.from_iterable(each.terms for each in sentences))

    def support(self, statement: str, passage_index: int) -> float:
        """Returns how far a whole passage supports a statement, 0 to 1."""
        held = frozenset().union(*(each.terms for each in self._sentences(passage_index)))
        return self._coverage(self._wanted(statement), held)

    def best_span(self, statement: str, passage_index: int) -> Excerpt:
        """Returns the sentence, or the two neighbours, of a passage that supports most.

        With nothing in common it is the passage's first sentence, and the support is 0.

        Args:
            statement: What is to be supported.
            passage_index: The passage, which holds some visible text.
        """
        wanted = self._wanted(statement)
        known = self._last_spans.get(passage_index)
        if known is not None:
            return known
        found = self._last_spans[passage_index] = self._best_span(wanted, passage_index)
        return found

    def _best_span(self, wanted: frozenset[str], passage_index: int) -> Excerpt:
        sentences = self._sentences(passage_index)
        single = max(
            (self._judged(wanted, [each]) for each in sentences), key=lambda each: each.support
        )
        pairs = [self._judged(wanted, pair) for pair in pairwise(sentences)]
        pair = max(pairs, key=lambda each: each.support, default=single)
        return pair if pair.support >= single.support + _MIN_GAIN else single

    def repeated(self, statement: str, passage_index: int) -> Excerpt | None:
        """Returns the whole sentences of a passage that a statement repeats word for word.

        White space, end marks and the bars of tables do not matter.

        Args:
            statement: What may be a quotation.
            passage_index: The passage.
        """
        said = _words_and_signs(statement)
        sentences = self._sentences(passage_index)
        for first, start in enumerate(sentences):
            rest = said
            for last in sentences[first:]:
                own = self._said(last)
                if rest[: len(own)] != own:
                    break
                rest = rest[len(own) :]
                if not rest and said:
                    return Excerpt(
                        passage_index=passage_index,
                        char_start=start.span.char_start,
                        char_end=last.span.char_end,
                        support=1.0,
                    )
        return None

    def joint_support(
        self, statement: str, excerpts: Sequence[Excerpt], *, also: frozenset[str] = frozenset()
    ) -> float:
        """Returns how far several stretches together support a statement, 0 to 1.

        Args:
            statement: What is to be supported.
            excerpts: The stretches.
            also: Terms that are held as well, such as those of headings.
        """
        held = frozenset().union(
            also,
            *(
                sentence.terms
                for excerpt in excerpts
                for sentence in self._sentences(excerpt.passage_index)
                if sentence.span.char_start < excerpt.char_end
                and excerpt.char_start < sentence.span.char_end
            ),
        )
        return self._coverage(self._wanted(statement), held)

    def select(self, question: str, count: int) -> tuple[Excerpt, ...]:
        """Returns the sentences that answer a question best, the best one first.

        A line that is no full sentence, such as a heading or a signature, is given together with
        the sentence after it. Sentences that say the same as one already chosen are left out.

        Args:
            question: The question.
            count: Most excerpts.
        """
        wanted = frozenset(analyse_query(question))
        candidates = [
            each
            for index in range(len(self._texts))
            for each in self._answers(self._sentences(index))
            if each.terms & wanted
        ]
        chosen: list[_Sentence] = []
        while candidates and len(chosen) < count:
            covered = frozenset().union(*(each.terms for each in chosen))
            best = max(candidates, key=lambda each: self._worth(each, wanted, covered))
            chosen.append(best)
            candidates = [each for each in candidates if not _repeats(each, best)]
        return tuple(self._judged(wanted, [each]) for each in chosen)

    def _sentences(self, passage_index: int) -> tuple[_Sentence, ...]:
        sentences = self._analysed.get(passage_index)
        if sentences is None:
            sentences = tuple(
                _Sentence(passage_index, span, terms)
                for span, terms in _analysed(self._texts[passage_index])
            )
            self._analysed[passage_index] = sentences
        return sentences

    def _said(self, sentence: _Sentence) -> tuple[str, ...]:
        key = sentence.passage_index, sentence.span
        said = self._sayings.get(key)
        if said is None:
            start, end = sentence.span
            said = _words_and_signs(self._texts[sentence.passage_index][start:end])
            self._sayings[key] = said
        return said

    def _wanted(self, statement: str) -> frozenset[str]:
        # A statement is often asked about for several passages, one after the other.
        if statement != self._last_wanted[0]:
            self._last_wanted = statement, frozenset(analyse_query(statement))
            self._last_spans = {}
        return self._last_wanted[1]

    def _weight(self, terms: Iterable[str]) -> float:
        # In a fixed order, so that equal inputs give equal sums.
        return sum(map(self._term_weight, sorted(terms)))

    def _term_weight(self, term: str) -> float:
        weight = self._weights.get(term)
        if weight is None:
            while self._unweighed:
                self.analyse_next()
            weight = inverse_document_frequency(self._sentence_count, self._frequencies[term])
            self._weights[term] = weight
        return weight

    def _coverage(self, wanted: frozenset[str], held: frozenset[str]) -> float:
        shared = wanted & held
        return min(1.0, self._weight(shared) / self._weight(wanted)) if shared else 0.0

    def _judged(self, wanted: frozenset[str], sentences: Sequence[_Sentence]) -> Excerpt:
        return Excerpt(
            passage_index=sentences[0].passage_index,
            char_start=sentences[0].span.char_start,
            char_end=sentences[-1].span.char_end,
            support=self._coverage(wanted, frozenset().union(*(each.terms for each in sentences))),
        )

    def _worth(self, sentence: _Sentence, wanted: frozenset[str], covered: frozenset[str]) -> float:
        relevance = self._coverage(wanted, sentence.terms)
        novelty = self._coverage(wanted - covered, sentence.terms)
        worth = (1.0 - _NOVELTY_WEIGHT) * relevance + _NOVELTY_WEIGHT * novelty
        if len(sentence.terms) < _FEW_TERMS or not self._is_complete(sentence):
            worth *= _FRAGMENT_FACTOR
        return worth / (1.0 + _RANK_DISCOUNT * sentence.passage_index)

    def _is_complete(self, sentence: _Sentence) -> bool:
        start, end = sentence.span
        return _COMPLETE.search(self._texts[sentence.passage_index][start:end]) is not None

    def _answers(self, sentences: Sequence[_Sentence]) -> Iterator[_Sentence]:
        for index, sentence in enumerate(sentences):
            if not sentence.terms:
                continue
            if self._is_complete(sentence) or index + 1 == len(sentences):
                yield sentence
            else:
                following = sentences[index + 1]
                span = Span(sentence.span.char_start, following.span.char_end)
                yield _Sentence(sentence.passage_index, span, sentence.terms | following.terms)


def _words_and_signs(text: str) -> tuple[str, ...]:
    return tuple(_WORD_OR_SIGN.findall(text.casefold()))


def _weighed(texts: Sequence[str]) -> Iterator[int]:
    """Yields the passages that the weights come from, the first one always."""
    length = 0
    for index, text in enumerate(texts[:_WEIGHED_COUNT]):
        if length >= _WEIGHED_CHARACTERS:
            return
        yield index
        length += len(text)


@lru_cache(maxsize=_MOST_KNOWN_TEXTS)
def _analysed(text: str) -> tuple[tuple[Span, frozenset[str]], ...]:
    """Returns the sentences of a text with their terms."""
    return tuple(_analyse(text))


def _analyse(text: str) -> Iterator[tuple[Span, frozenset[str]]]:
    for start, end in segment_sentences(text):
        words = _DECORATION.match(text, start, end)
        visible = words.end() if words and words.end() < end else start
        yield Span(visible, end), frozenset(analyse_query(text[visible:end]))


def _repeats(candidate: _Sentence, chosen: _Sentence) -> bool:
    if candidate.passage_index == chosen.passage_index:
        first, second = candidate.span, chosen.span
        if first.char_start < second.char_end and second.char_start < first.char_end:
            return True
    shared = len(candidate.terms & chosen.terms)
    return shared > _SAME_RATIO * min(len(candidate.terms), len(chosen.terms))
