"""How long a backend may be silent before that counts as a failure."""

from dataclasses import dataclass

__all__ = ["Overruns", "Patience"]

_MOST_DOUBLINGS = 6
# After so many first tokens it is known what a model takes on a host.
_PROOF_COUNT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a backend may be silent.

    Attributes:
        first_token_seconds: At most, before the first token.
        first_token_floor_seconds: At least, however soon it is predicted.
        unproven_seconds: At least, before the first token of a model that has not shown yet what
            it takes on a host.
        stall_seconds: At most, between two tokens.
        stall_floor_seconds: At least, however fast the model is.
    """

    first_token_seconds: float
    first_token_floor_seconds: float
    stall_seconds: float
    stall_floor_seconds: float
    unproven_seconds: float = 0.0

    def first_token(
        self, predicted_seconds: float, doubling_count: int = 0, *, proven: bool = True
    ) -> float:
        """Returns the limit for the first token of a model that is loaded.

        Args:
            predicted_seconds: When the token is predicted to come.
            doubling_count: How often the limit was too short in a row.
            proven: Whether the prediction rests on what the model has shown there.
        """
        limit = max(self.first_token_floor_seconds, 3.0 * predicted_seconds) * 2.0**doubling_count
        if not proven:
            limit = max(limit, self.unproven_seconds)
        return min(limit, self.first_token_seconds)

    def stall(self, decode_rate: float) -> float:
        """Returns the limit between two tokens of a model of some speed, in tokens per second."""
        # Twenty times what one token in a hundred exceeds, which is about three mean ones.
        return min(max(self.stall_floor_seconds, 60.0 / decode_rate), self.stall_seconds)


class Overruns:
    """Which models have exceeded the limit for their first token, and how often in a row.

    What a model takes is learned from its answers only. One that is much slower than thought would
    be cut off each time before its first token, and would stay unknown for ever.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}
        self._proofs: dict[tuple[str, str], int] = {}

    def note(self, backend_id: str, model: str) -> None:
        """Notes that no first token came within the limit.

        Args:
            backend_id: Where.
            model: Placement key.
        """
        self._counts[backend_id, model] = self.count(backend_id, model) + 1

    def forgive(self, backend_id: str, model: str) -> None:
        """Notes that a first token came as soon as it should.

        Args:
            backend_id: Where.
            model: Placement key.
        """
        self._counts.pop((backend_id, model), None)

    def prove(self, backend_id: str, model: str) -> None:
        """Notes that a first token came, however late.

        Args:
            backend_id: Where.
            model: Placement key.
        """
        self._proofs[backend_id, model] = self._proofs.get((backend_id, model), 0) + 1

    def proven(self, backend_id: str, model: str) -> bool:
        """Tells whether it is known what a model takes.

        Args:
            backend_id: Where.
            model: Placement key.
        """
        return self._proofs.get((backend_id, model), 0) >= _PROOF_COUNT

    def count(self, backend_id: str, model: str) -> int:
        """Returns how often in a row the limit was exceeded, at most 6.

        Args:
            backend_id: Where.
            model: Placement key.
        """
        return min(self._counts.get((backend_id, model), 0), _MOST_DOUBLINGS)
