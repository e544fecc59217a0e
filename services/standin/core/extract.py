"""The stand-in's answer: the sentences of the prompt's sources that best match its question.

No language model. The score of a sentence is the sum of the inverse document frequencies (over
all sentences of the prompt) of the question's terms that it holds; terms that an already chosen
sentence holds count less, so that the sentences complete each other.
"""

import math
from collections import Counter
from dataclasses import dataclass

from services.standin.core.sources import (
    Sentence,
    Source,
    find_question,
    find_sources,
    split_sentences,
)
from services.standin.core.words import find_terms

NO_ANSWER = "The sources do not contain an answer to this question."
NO_MODEL = (
    "This is the stand-in of pannier: no language model is running, "
    "and the prompt holds no text to answer from."
)

_MIN_SENTENCES = 2
_MAX_SENTENCES = 4
_MAX_CHARACTERS = 400
# What a second, and a third or fourth, sentence must add: shares of what the best one matches.
_MIN_SECOND_GAIN_RATIO = 0.1
_MIN_GAIN_RATIO = 0.35
# The answer must match this share of the question's weight, else the sources do not answer it.
_MIN_COVERAGE_RATIO = 0.3
_TITLE_WEIGHT = 0.3
_REPEATED_TERM_WEIGHT = 0.2
_CODE_WEIGHT = 0.3
_MIN_PROSE_LETTERS_RATIO = 0.82
_MIN_WORDS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    sentence: Sentence
    terms: frozenset[str]
    title_terms: frozenset[str]
    weight: float


def answer(prompt: str, system: str = "") -> str:
    """Answer a prompt from its own text; the same prompt always gets the same answer.

    Args:
        prompt: The user's text: with source blocks and a `Question:` paragraph, or plain.
        system: The system text; its source blocks count, its instructions do not.

    Returns:
        Two to four sentences, each with the marker of its source (one where only one matches);
        or a sentence saying that there is no answer, or nothing to extract one from.
    """
    sources = find_sources(system) + find_sources(prompt)
    question = find_question(prompt)
    if not sources:
        question, rest = _split_question(prompt, question)
        if len(rest.split()) < _MIN_WORDS:
            return NO_MODEL
        sources = [Source(marker="", title="", text=rest)]
    elif question is None:
        question = prompt.rpartition("</source>")[2]
    chosen = _choose(sources, frozenset(find_terms(question)))
    if not chosen:
        return NO_ANSWER if sources[0].marker else NO_MODEL
    return " ".join(_cite(sentence, sources[sentence.source].marker) for sentence in chosen)


def _split_question(prompt: str, question: str | None) -> tuple[str, str]:
    """Separate the question of a plain prompt (by default its last one) from its other text."""
    if question is None:
        sentences = split_sentences(prompt)
        asked = [sentence for sentence in sentences if sentence.endswith("?")]
        question = (asked or sentences or [""])[-1]
        return question, "\n\n".join(text for text in sentences if text != question)
    head, _, _ = prompt.rpartition("Question:")
    return question, head


def _choose(sources: list[Source], wanted: frozenset[str]) -> list[Sentence]:
    candidates = _candidates(sources)
    idf = _inverse_frequencies(candidates, wanted)
    total = sum(idf.values())
    chosen: list[_Candidate] = []
    covered: set[str] = set()
    best_gain = 0.0
    while candidates and len(chosen) < _MAX_SENTENCES:
        gains = [_gain(candidate, idf, covered) for candidate in candidates]
        gain = max(gains)
        ratio = _MIN_GAIN_RATIO if len(chosen) >= _MIN_SENTENCES else _MIN_SECOND_GAIN_RATIO
        if gain <= best_gain * ratio:
            break
        best = candidates.pop(gains.index(gain))
        best_gain = best_gain or gain
        chosen.append(best)
        covered |= (best.terms | best.title_terms) & wanted
    if sum(idf[term] for term in covered) < total * _MIN_COVERAGE_RATIO:
        return []
    return [candidate.sentence for candidate in chosen]


def _candidates(sources: list[Source]) -> list[_Candidate]:
    candidates: dict[str, _Candidate] = {}
    for index, source in enumerate(sources):
        title_terms = frozenset(find_terms(source.title))
        for text in split_sentences(source.text):
            if text not in candidates and len(text.split()) >= _MIN_WORDS:
                candidates[text] = _Candidate(
                    sentence=Sentence(source=index, text=text),
                    terms=frozenset(find_terms(text)),
                    title_terms=title_terms,
                    weight=1.0 if _is_prose(text) else _CODE_WEIGHT,
                )
    return list(candidates.values())


def _inverse_frequencies(candidates: list[_Candidate], terms: frozenset[str]) -> dict[str, float]:
    """ln(1 + (N - n + 0.5) / (n + 0.5)) per term, as in BM25 (Robertson and Zaragoza, 2009)."""
    counts = Counter(term for candidate in candidates for term in candidate.terms & terms)
    number = len(candidates)
    return {
        term: math.log1p((number - counts[term] + 0.5) / (counts[term] + 0.5))
        for term in sorted(terms)
    }


def _gain(candidate: _Candidate, idf: dict[str, float], covered: set[str]) -> float:
    score = 0.0
    for term, weight in idf.items():
        if term in candidate.terms:
            score += weight * (_REPEATED_TERM_WEIGHT if term in covered else 1.0)
    if score == 0.0:
        return 0.0
    score += _TITLE_WEIGHT * sum(
        weight
        for term, weight in idf.items()
        if term in candidate.title_terms and term not in candidate.terms | covered
    )
    return score * candidate.weight


def _is_prose(text: str) -> bool:
    """Whether a sentence is language rather than code, a table or a drawing."""
    solid = [character for character in text if not character.isspace()]
    letters = sum(character.isalnum() or character in ",.'-" for character in solid)
    return letters >= _MIN_PROSE_LETTERS_RATIO * len(solid) and text[-1] in ".!?:)\"'"


def _cite(sentence: Sentence, marker: str) -> str:
    text = sentence.text
    if len(text) > _MAX_CHARACTERS:
        text = text[:_MAX_CHARACTERS].rpartition(" ")[0]
    if not marker:
        return text
    if text[-1] in ".!?":
        return f"{text[:-1]} [{marker}]{text[-1]}"
    return f"{text} [{marker}]."
