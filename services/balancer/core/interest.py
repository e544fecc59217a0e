"""What the queue as a whole asks for, and how much of it is in memory."""

from collections.abc import Collection, Iterable

from services.balancer.core.snapshot import Residency, Snapshot

__all__ = ["Interest"]

_IN_MEMORY = (Residency.WARM, Residency.LOADING)


class Interest:
    """Which models are wanted, and how many copies of them are in memory.

    Args:
        wanted: Keys of the models that the queue asks for.
        snapshot: The fleet.

    Attributes:
        version: Changes whenever the plan loads or unloads something.
    """

    __slots__ = ("_copies", "_snapshot", "_wanted", "version")

    def __init__(self, wanted: Collection[str], snapshot: Snapshot) -> None:
        self._wanted = wanted
        self._snapshot = snapshot
        self._copies: dict[str, int] = {}
        self.version = 0

    def is_wanted(self, key: str) -> bool:
        """Tells whether the queue asks for a model."""
        return key in self._wanted

    def is_only_copy(self, key: str) -> bool:
        """Tells whether a model in memory has no other copy there."""
        return self._copy_count(key) <= 1

    def _copy_count(self, key: str) -> int:
        if key not in self._copies:
            models = (
                view.models.get(key)
                for view in self._snapshot.backends
                if view.models and view.takes_requests and not view.drained
            )
            self._copies[key] = sum(
                model is not None and model.residency in _IN_MEMORY for model in models
            )
        return self._copies[key]

    def note_load(self, loaded: str, evicted: Iterable[str]) -> None:
        """Notes that the plan gives some models' room to another."""
        for key in evicted:
            self._copies[key] = self._copy_count(key) - 1
        self._copies[loaded] = self._copy_count(loaded) + 1
        self.version += 1
