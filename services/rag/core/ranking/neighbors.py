"""Joining candidates that follow each other in a document into one passage."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

from services.rag.core.passages import PageSpan, Passage, RankedPassage, TextSpan
from services.rag.core.ranking.candidate import Candidate

__all__ = ["Run", "fill_places", "gaps_of", "join"]

LONGEST_PASSAGE_TOKENS = 1200
"""Estimated tokens that a joined passage does not exceed, so that one never fills a context."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Candidates that become one passage, in the order of the document.

    Attributes:
        members: At least one.
        place: Place of the best of them among all, from 0.
    """

    members: tuple[Candidate, ...]
    place: int

    @property
    def best(self) -> Candidate:
        """The candidate that brought the others up."""
        return max(self.members, key=lambda each: (each.relevance, -each.ranking.chunk_id))


def fill_places(candidates: Iterable[Candidate], *, places: int, join_neighbors: bool) -> list[Run]:
    """Chooses the candidates that fill the places, joining those that follow each other.

    A candidate that follows another one takes no place of its own, so the next best gets it.

    Args:
        candidates: Best first; none is taken after the first that finds no place.
        places: Passages to return.
        join_neighbors: Whether candidates are joined.

    Returns:
        What becomes of each place, in the order of the best candidates.
    """
    runs: dict[tuple[str, int], Run] = {}
    for place, candidate in enumerate(candidates):
        grown = Run((candidate,), place)
        absorbed: set[Run] = set()
        if join_neighbors:
            for run in _touching(runs, candidate):
                if run not in absorbed and _tokens(grown) + _tokens(run) <= LONGEST_PASSAGE_TOKENS:
                    absorbed.add(run)
                    grown = _joined(grown, run)
        taken = len(set(runs.values()))
        if taken - len(absorbed) + 1 > places:
            break
        for member in grown.members:
            runs[_key(member.passage)] = grown
    return sorted(set(runs.values()), key=lambda run: run.place)


def gaps_of(runs: Iterable[Run]) -> list[TextSpan]:
    """Returns what has to be read from the documents to join the members of runs."""
    return [
        TextSpan(before.chunk_id, before.char_end, after.char_start)
        for run in runs
        for before, after in _pairs(run)
        if before.char_end < after.char_start
    ]


def join(run: Run, text_of: Callable[[TextSpan], str | None]) -> list[RankedPassage]:
    """Makes the passage of a run.

    Args:
        run: The run.
        text_of: Returns the text of a gap, exactly as the document has it; None where the document
            is gone or was replaced.

    Returns:
        One passage, whose text is exactly the document's characters from `char_start` to
        `char_end`; where a gap is not known the members, each on its own.
    """
    first, last = run.members[0].passage, run.members[-1].passage
    if first is last:
        return [RankedPassage(first, run.best.ranking)]
    text = first.text
    for before, after in _pairs(run):
        gap = max(0, after.char_start - before.char_end)
        between = ""
        if gap:
            span = TextSpan(before.chunk_id, before.char_end, after.char_start)
            between = text_of(span) or ""
        if len(between) != gap:
            return [RankedPassage(each.passage, each.ranking) for each in run.members]
        text += between + after.text[max(0, before.char_end - after.char_start) :]
    best, path = run.best, _common_path(run)
    passage = replace(
        best.passage,
        ordinal=first.ordinal,
        ordinal_end=last.ordinal_end or last.ordinal + 1,
        char_start=first.char_start,
        char_end=last.char_end,
        text=text,
        heading_path=path,
        header=next(
            (each.passage.header for each in run.members if each.passage.heading_path == path),
            first.header,
        ),
        token_estimate=_tokens(run),
        page_start=first.page_start,
        page_end=last.page_end,
        page_spans=tuple(_page_span(each.passage) for each in run.members),
        injection_suspected=any(each.passage.injection_suspected for each in run.members),
    )
    return [RankedPassage(passage, best.ranking)]


def _touching(runs: dict[tuple[str, int], Run], candidate: Candidate) -> list[Run]:
    document_id, ordinal = _key(candidate.passage)
    beside = (runs.get((document_id, ordinal - 1)), runs.get((document_id, ordinal + 1)))
    return [run for run in beside if run is not None]


def _joined(one: Run, other: Run) -> Run:
    members = sorted((*one.members, *other.members), key=lambda each: each.passage.ordinal)
    return Run(tuple(members), min(one.place, other.place))


def _pairs(run: Run) -> Iterable[tuple[Passage, Passage]]:
    passages = [each.passage for each in run.members]
    return pairwise(passages)


def _page_span(passage: Passage) -> PageSpan:
    return PageSpan(passage.char_start, passage.char_end, passage.page_start, passage.page_end)


def _common_path(run: Run) -> tuple[str, ...]:
    paths = [each.passage.heading_path for each in run.members]
    shared: list[str] = []
    for headings in zip(*paths, strict=False):
        if len(set(headings)) > 1:
            break
        shared.append(headings[0])
    return tuple(shared)


def _tokens(run: Run) -> int:
    return sum(each.passage.token_estimate for each in run.members)


def _key(passage: Passage) -> tuple[str, int]:
    return passage.document_id, passage.ordinal
