"""Whether matches as similar as one may be served: the error budget.

A match is vouched for where two things hold.

* Had all matches at least as similar as it been served, the share of wrong ones among them would
  keep the budget: the upper bound of the share observed in its bin and all bins above is below it.
* Its own neighbourhood, its bin and those next to it, is known well enough by itself not to be
  much worse, and has not shown to be worse: otherwise few wrong matches near the threshold could
  hide behind many right ones above.

More right verdicts never make a judgement worse, and more wrong ones never make it better.
"""

from enum import Enum

from services.cache.core.semantic.bins import BIN_COUNT, Verdicts, bin_of, lower_edge
from services.cache.core.semantic.bounds import error_upper_bound

__all__ = ["Standing", "effective_threshold", "judge"]

# With a budget of 1 %, 59 verdicts without an error bound the neighbourhood.
_TOLERANCE = 5.0


class Standing(Enum):
    """What verdicts say about matches of some similarity.

    Attributes:
        PROVEN: They may be served.
        UNPROVEN: Too few were verified to tell.
        OVER_BUDGET: Too many were wrong.
    """

    PROVEN = "proven"
    UNPROVEN = "unproven"
    OVER_BUDGET = "over_budget"


def judge(verdicts: Verdicts, similarity: float, *, budget_ratio: float) -> Standing:
    """Judges matches of a similarity.

    Args:
        verdicts: What is known.
        similarity: Cosine similarity; below the first bin nothing is ever proven.
        budget_ratio: Share of wrong answers that hits may have, (0, 1).
    """
    number = bin_of(similarity)
    if number is None:
        return Standing.UNPROVEN
    above = verdicts.wrong_and_verified(range(number, BIN_COUNT))
    around = verdicts.wrong_and_verified(range(number - 1, number + 2))
    # Less similar matches say nothing against more similar ones.
    near = verdicts.wrong_and_verified(range(number, number + 2))
    if _seems_worse(*above, budget_ratio) or _is_worse(*near, budget_ratio):
        return Standing.OVER_BUDGET
    tolerated_ratio = min(1.0, _TOLERANCE * budget_ratio)
    if error_upper_bound(*above) > budget_ratio or error_upper_bound(*around) > tolerated_ratio:
        return Standing.UNPROVEN
    return Standing.PROVEN


def effective_threshold(verdicts: Verdicts, threshold: float, *, budget_ratio: float) -> float:
    """Returns the least similarity at which matches may be served, now or once proven.

    It is the threshold as it was set, raised bin by bin past those that are over budget; it falls
    back as soon as verdicts allow it, since nothing is stored but these.

    Args:
        verdicts: What is known.
        threshold: Least similarity as it was set, [0, 1].
        budget_ratio: Share of wrong answers that hits may have, (0, 1).
    """
    effective = threshold
    while effective < 1.0:
        number = bin_of(effective)
        if number is None:
            break
        if judge(verdicts, effective, budget_ratio=budget_ratio) is not Standing.OVER_BUDGET:
            break
        effective = lower_edge(number + 1)
    return effective


def _seems_worse(wrong_count: int, verified_count: int, ratio: float) -> bool:
    return wrong_count > ratio * verified_count


def _is_worse(wrong_count: int, verified_count: int, ratio: float) -> bool:
    """Returns whether a true ratio that small would hardly ever show so many errors."""
    right_count = verified_count - wrong_count
    return wrong_count > 0 and 1.0 - error_upper_bound(right_count, verified_count) > ratio
