"""Remembers in how many chunks common terms are, which takes long to count."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = ["Frequencies", "TermMemory"]

# Rarer terms are counted in less than a millisecond.
_LEAST_FREQUENCY = 1_000
_MOST_TERMS = 2_000
_MOST_COLLECTIONS = 256


@dataclass(frozen=True, slots=True)
class Frequencies:
    """How common terms of a collection are.

    Attributes:
        version: The collection's, which every change of it changes.
        by_term: In how many chunks a term is.
    """

    version: int
    by_term: Mapping[str, int]


# No collection has such a version.
_NOTHING = Frequencies(-1, {})


class TermMemory:
    """The common terms of the collections that were searched last, each for its latest version."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], tuple[int, dict[str, int]]] = OrderedDict()

    def of(self, tenant_id: str, collection: str) -> Frequencies:
        """Returns what is known of a collection, which may have changed since."""
        kept = self._kept.get((tenant_id, collection))
        return Frequencies(*kept) if kept is not None else _NOTHING

    def note(
        self, tenant_id: str, collection: str, version: int, frequencies: Iterable[tuple[str, int]]
    ) -> None:
        """Notes how common terms are in one version of a collection."""
        key = (tenant_id, collection)
        known_version, by_term = self._kept.pop(key, (version, {}))
        if known_version != version:
            by_term = {}
        by_term.update((term, count) for term, count in frequencies if count >= _LEAST_FREQUENCY)
        while len(by_term) > _MOST_TERMS:
            del by_term[next(iter(by_term))]
        self._kept[key] = version, by_term
        if len(self._kept) > _MOST_COLLECTIONS:
            self._kept.popitem(last=False)
