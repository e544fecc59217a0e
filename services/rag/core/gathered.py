"""What tools have found on the way to one answer, under numbers that stay as they are."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.rag.core.passages import RankedPassage

__all__ = ["Findings", "Numbered"]


@dataclass(frozen=True, slots=True)
class Numbered:
    """A passage under its number; `is_new` where it was not found before."""

    number: int
    ranked: RankedPassage
    is_new: bool


class Findings:
    """The passages found so far, the first with number 1."""

    def __init__(self) -> None:
        self._passages: list[RankedPassage] = []
        # The best place that each passage had in what one call found.
        self._places: list[int] = []

    def __len__(self) -> int:
        """Returns how many different passages there are."""
        return len(self._passages)

    def add(self, passages: Sequence[RankedPassage]) -> list[Numbered]:
        """Takes what one call found, best first, and returns it with its numbers."""
        numbered: list[Numbered] = []
        for place, each in enumerate(passages):
            number = self._number_of(each)
            is_new = number is None
            if number is None:
                self._passages.append(each)
                self._places.append(place)
                number = len(self._passages)
            else:
                self._places[number - 1] = min(self._places[number - 1], place)
            numbered.append(Numbered(number, each, is_new))
        return numbered

    def in_turn(self) -> tuple[RankedPassage, ...]:
        """Returns the passages as they are best left out from the end: the first of each call lead.

        What one call found would otherwise take the room of what the others found.
        """
        order = sorted(range(len(self._passages)), key=lambda index: self._places[index])
        return tuple(self._passages[index] for index in order)

    def in_order(self, passages: Sequence[RankedPassage]) -> tuple[RankedPassage, ...]:
        """Returns those of the passages that are given, by their numbers."""
        wanted = set(map(id, passages))
        return tuple(each for each in self._passages if id(each) in wanted)

    def _number_of(self, ranked: RankedPassage) -> int | None:
        """Returns the number of a passage that holds this one whole."""
        passage = ranked.passage
        for number, known in enumerate(self._passages, 1):
            held = known.passage
            if (
                (held.origin, held.document_id) == (passage.origin, passage.document_id)
                and held.char_start <= passage.char_start
                and passage.char_end <= held.char_end
                and passage.text in held.text
            ):
                return number
        return None
