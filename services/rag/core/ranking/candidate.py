"""A passage on its way through the steps of ranking."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.rag.core.passages import FusedChunk, Passage, RankedPassage

__all__ = ["Candidate", "candidates_of"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage that may be returned; a list of them is ordered best first.

    Attributes:
        passage: The passage.
        ranking: The scores that brought it up.
        relevance: What it is ordered by, 0 to 1: the fused score, and after reranking that and the
            cross-encoder's belief together.
    """

    passage: Passage
    ranking: FusedChunk
    relevance: float

    @classmethod
    def of(cls, ranked: RankedPassage) -> "Candidate":
        """Makes a candidate of what fusion brought up."""
        return cls(ranked.passage, ranked.ranking, ranked.ranking.score)


def candidates_of(fused: Sequence[FusedChunk], passages: Mapping[int, Passage]) -> list[Candidate]:
    """Returns the candidates of what fusion brought up, as far as it could be loaded.

    Args:
        fused: Best first.
        passages: What was loaded, by chunk id.
    """
    return [
        Candidate.of(RankedPassage(passages[each.chunk_id], each))
        for each in fused
        if each.chunk_id in passages
    ]
