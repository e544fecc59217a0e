"""Verdicts are counted in bins of similarity that leave no gap."""

from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.semantic.bins import BIN_COUNT, NO_VERDICTS, bin_of, lower_edge


def test_an_edge_belongs_to_the_bin_above_it():
    for number in range(BIN_COUNT):
        assert bin_of(lower_edge(number)) == number
    assert lower_edge(BIN_COUNT) == 1.0


@given(st.floats(0.8, 1.0))
def test_every_similarity_lies_between_the_edges_of_its_bin(similarity):
    number = bin_of(similarity)
    assert number is not None
    assert lower_edge(number) <= similarity + 1e-9
    assert similarity <= lower_edge(number + 1) + 1e-9


def test_what_is_less_alike_or_more_than_equal_has_the_outermost_bin_or_none():
    assert bin_of(0.79) is None
    assert bin_of(-1.0) is None
    assert bin_of(1.0000002) == BIN_COUNT - 1


def test_verdicts_add_up_over_bins_that_exist():
    verdicts = (
        NO_VERDICTS.adding(3, right_count=2).adding(3, wrong_count=1).adding(39, right_count=4)
    )
    assert verdicts.wrong_and_verified([3]) == (1, 3)
    assert verdicts.wrong_and_verified([-1, 3, 39, BIN_COUNT]) == (1, 7)
    assert verdicts.wrong_and_verified([]) == (0, 0)
    assert NO_VERDICTS.wrong_and_verified(range(BIN_COUNT)) == (0, 0)
