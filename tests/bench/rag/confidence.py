"""Measures how well confidence tells questions that a collection answers from others.

`python -m tests.bench.rag.confidence` prints the area under the ROC curve for three collections, on
questions of other domains and on the same questions after what answers them was taken out.
"""

import argparse
import csv
import json
import random
import tempfile
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from services.rag.core.analysis import analyse_document, analyse_query
from services.rag.core.bm25 import inverse_document_frequency, term_weight
from services.rag.core.confidence import SAMPLE_COUNT, coverage_ratio, estimate, likeness_of
from services.rag.core.fusion import FusionMethod, Hits, fuse
from services.rag.core.passages import ScoredChunk, TermStatistics
from services.rag.core.retrieved import Band, Confidence
from tests.bench.cache.quality_sets import Question, banking, clinc, out_of_scope
from tests.kit.minilm import embed_cached

__all__ = ["auc", "main"]

_ROOT = Path(__file__).parents[3]
_CANDIDATES = 100
_RELEVANT_GRADE = 1
# Enough for a standard error below 0.02, and few enough to be embedded in a minute.
_QUESTIONS, _INTENT_TEXTS = 300, 2000
_ARMS = ("both arms", "words alone", "meaning alone")


class Index:
    """A collection in memory, searched as the store does."""

    def __init__(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        self.texts, self.vectors = texts, vectors
        self.terms = [analyse_document(text) for text in texts]
        self.average_length = sum(each.length for each in self.terms) / len(texts)
        self.postings: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for number, each in enumerate(self.terms):
            for term, count in each.counts.items():
                self.postings[term].append((number, count))
        sample = np.random.default_rng(1).choice(len(texts), SAMPLE_COUNT, replace=False)
        self.likeness = likeness_of([vectors[number] for number in sample])

    def judge(
        self, question: str, vector: np.ndarray, arms: str, without: Collection[int] = ()
    ) -> Confidence:
        """Estimates the confidence in what is found for a question."""
        terms = analyse_query(question)
        statistics = TermStatistics(
            chunk_count=len(self.texts),
            average_length=self.average_length,
            document_frequencies={term: len(self.postings.get(term, ())) for term in terms},
        )
        hits = Hits(
            () if arms == "words alone" else self._near(vector, without),
            () if arms == "meaning alone" else self._worded(terms, without),
        )
        fused = fuse(FusionMethod.CONVEX, hits)
        coverage = None
        if arms != "meaning alone" and fused:
            best = self.terms[fused[0].chunk_id]
            coverage = coverage_ratio(terms, statistics, best.counts)
        return estimate(
            hits,
            terms=terms,
            statistics=None if arms == "meaning alone" else statistics,
            likeness=None if arms == "words alone" else self.likeness,
            coverage=coverage,
        )

    def _near(self, vector: np.ndarray, without: Collection[int]) -> list[ScoredChunk]:
        similarities = self.vectors @ vector
        similarities[list(without)] = -2.0
        best = np.argsort(-similarities)[:_CANDIDATES]
        return [ScoredChunk(int(each), float(similarities[each])) for each in best]

    def _worded(self, terms: Sequence[str], without: Collection[int]) -> list[ScoredChunk]:
        scores: dict[int, float] = defaultdict(float)
        for term in terms:
            found = self.postings.get(term, ())
            rarity = inverse_document_frequency(len(self.texts), len(found))
            for number, count in found:
                if number not in without:
                    length = self.terms[number].length
                    scores[number] += rarity * term_weight(count, length, self.average_length)
        best = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:_CANDIDATES]
        return [ScoredChunk(number, score) for number, score in best]


@dataclass(frozen=True, slots=True)
class Collected:
    """A collection with its questions, each with the numbers of the texts that answer it."""

    name: str
    texts: list[str]
    questions: list[str]
    answers: list[set[int]]


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Returns how often a positive score is above a negative one; ties count half."""
    ordered = np.sort(np.asarray(negative))
    above = np.searchsorted(ordered, positive, "left") + np.searchsorted(ordered, positive, "right")
    return float(above.mean() / 2 / len(negative))


def cranfield(data: Path) -> Collected:
    """Reads Cranfield."""
    folder = data / "cranfield"
    documents = [json.loads(line) for line in (folder / "corpus.jsonl").open(encoding="utf-8")]
    questions = [json.loads(line) for line in (folder / "queries.jsonl").open(encoding="utf-8")]
    numbers = {each["_id"]: number for number, each in enumerate(documents)}
    relevant: dict[str, set[int]] = defaultdict(set)
    with (folder / "qrels" / "test.tsv").open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t")
        next(rows)
        for question_id, document_id, grade in rows:
            if int(grade) >= _RELEVANT_GRADE and document_id in numbers:
                relevant[question_id].add(numbers[document_id])
    return Collected(
        "Cranfield",
        [f"{each['title']}\n{each['text']}" for each in documents],
        [each["text"] for each in questions],
        [relevant[each["_id"]] for each in questions],
    )


def intents(name: str, known: list[Question], asked: list[Question], seed: int) -> Collected:
    """Makes a collection of questions; one that is after the same counts as the answer."""
    chosen = random.Random(seed)
    known = chosen.sample(known, min(_INTENT_TEXTS, len(known)))
    asked = chosen.sample(asked, min(_QUESTIONS, len(asked)))
    by_intent: dict[str, set[int]] = defaultdict(set)
    for number, each in enumerate(known):
        by_intent[each.intent].add(number)
    asked = [each for each in asked if by_intent[each.intent]]
    return Collected(
        name,
        [each.text for each in known],
        [each.text for each in asked],
        [by_intent[each.intent] for each in asked],
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=_ROOT.parent / "shared" / "data")
    kept = Path(tempfile.gettempdir()) / "pannier-quality-vectors"
    parser.add_argument(
        "--vectors", type=Path, default=kept, help="folder in which vectors are kept"
    )
    parser.add_argument("--seed", type=int, default=11, help="which questions are drawn")
    options = parser.parse_args()
    chosen = random.Random(options.seed)
    collections = [
        cranfield(options.data),
        *(
            intents(name, read(options.data, "tuning"), read(options.data, "report"), options.seed)
            for name, read in (("BANKING77", banking), ("CLINC150", clinc))
        ),
    ]
    strangers = [each.text for each in chosen.sample(out_of_scope(options.data), _QUESTIONS)]

    def embedded(texts: list[str]) -> np.ndarray:
        return embed_cached(texts, options.vectors)

    asked = {each.name: embedded(each.questions) for each in collections}
    stranger_vectors = embedded(strangers)
    for each in collections:
        index = Index(each.texts, embedded(each.texts))
        for arms in _ARMS:
            answered = [
                index.judge(question, vector, arms)
                for question, vector in zip(each.questions, asked[each.name], strict=True)
            ]
            removed = [
                index.judge(question, vector, arms, gone)
                for question, vector, gone in zip(
                    each.questions, asked[each.name], each.answers, strict=True
                )
            ]
            _show(f"{each.name}, {arms}: answer taken out", answered, removed)
            for other in collections:
                if {each.name, other.name} != {"BANKING77", "CLINC150"} and other is not each:
                    foreign = [
                        index.judge(question, vector, arms)
                        for question, vector in zip(other.questions, asked[other.name], strict=True)
                    ]
                    _show(f"{each.name}, {arms}: {other.name}'s", answered, foreign)
            outside = [
                index.judge(question, vector, arms)
                for question, vector in zip(strangers, stranger_vectors, strict=True)
            ]
            _show(f"{each.name}, {arms}: CLINC150's out of scope", answered, outside)


def _show(name: str, positive: list[Confidence], negative: list[Confidence]) -> None:
    area = auc([each.score for each in positive], [each.score for each in negative])
    shares = " ".join(
        f"{band.value} {_share(positive, band):.2f}/{_share(negative, band):.2f}" for band in Band
    )
    print(f"{name:60} AUC {area:.3f}   {shares}")


def _share(judged: list[Confidence], band: Band) -> float:
    return sum(each.band is band for each in judged) / len(judged)


if __name__ == "__main__":
    main()
