"""How far off estimates have been."""

import math

__all__ = ["Spread"]

# The samples that count most are the last so many.
_REMEMBERED_SAMPLES = 100.0


class Spread:
    """Learns by how much samples of a model differ from what was expected of them.

    Args:
        prior_deviation: Standard deviation to begin with.
        prior_weight: How many samples that is worth.
    """

    def __init__(self, prior_deviation: float, prior_weight: float) -> None:
        self._prior_square = prior_deviation**2
        self._prior_weight = prior_weight
        self._sums: dict[str, tuple[float, float]] = {}

    def note(self, model: str, difference: float, *, weight: float) -> None:
        """Learns from a sample.

        Args:
            model: Placement key.
            difference: The sample, less what was expected.
            weight: How much it tells, (0, 1].
        """
        squares, total = self._sums.get(model, (0.0, 0.0))
        kept = 1.0 - weight / _REMEMBERED_SAMPLES
        self._sums[model] = (kept * squares + weight * difference**2, kept * total + weight)

    def deviation(self, model: str) -> float:
        """Returns the standard deviation to be expected, more than 0."""
        squares, total = self._sums.get(model, (0.0, 0.0))
        prior = self._prior_weight
        return math.sqrt((prior * self._prior_square + squares) / (prior + total))
