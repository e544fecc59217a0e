"""Hit or candidate."""

import pytest

from services.cache.core.semantic.budget import Standing
from services.cache.core.semantic.decision import Reason, reason_to_doubt


@pytest.mark.parametrize(
    ("standing", "reason"),
    [
        (None, None),
        (Standing.PROVEN, None),
        (Standing.UNPROVEN, Reason.UNPROVEN),
        (Standing.OVER_BUDGET, Reason.OVER_BUDGET),
    ],
)
def test_only_what_is_proven_or_the_same_is_beyond_doubt(standing, reason):
    doubt = reason_to_doubt(standing, similar_enough=True, created_ms=5, changed_ms=4)
    assert doubt is reason


@pytest.mark.parametrize("standing", list(Standing))
def test_what_is_not_similar_enough_is_never_beyond_doubt(standing):
    doubt = reason_to_doubt(standing, similar_enough=False, created_ms=5, changed_ms=4)
    assert doubt is Reason.BELOW_THRESHOLD


@pytest.mark.parametrize("standing", [None, *Standing])
@pytest.mark.parametrize("changed_ms", [5, 6])
def test_a_collection_that_changed_since_casts_doubt_on_everything(standing, changed_ms):
    doubt = reason_to_doubt(standing, similar_enough=True, created_ms=5, changed_ms=changed_ms)
    assert doubt is Reason.COLLECTION_CHANGED
