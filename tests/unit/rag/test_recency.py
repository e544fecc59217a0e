from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.rag.core.ranking.recency import EQUAL_SHARE_RATIO, newest_first_among_equals
from tests.kit.candidates import candidate, passage

START = datetime(2026, 1, 1, tzinfo=UTC)


def ordered(*relevances_and_days: tuple[float, int | None]) -> list[int]:
    candidates = [
        candidate(
            passage(number, updated_at=None if days is None else START + timedelta(days=days)),
            relevance,
        )
        for number, (relevance, days) in enumerate(relevances_and_days, 1)
    ]
    return [each.ranking.chunk_id for each in newest_first_among_equals(candidates)]


def test_the_newer_of_two_that_match_equally_well_comes_first() -> None:
    assert ordered((0.80, 1), (0.79, 5)) == [2, 1]


def test_age_does_not_make_up_for_relevance() -> None:
    assert ordered((0.80, 1), (0.70, 5)) == [1, 2]


def test_a_better_one_that_had_to_wait_its_turn_is_no_equal() -> None:
    assert ordered((0.90, 1), (0.20, 1), (0.87, 5)) == [1, 2, 3]


def test_an_unknown_age_counts_as_the_greatest() -> None:
    assert ordered((0.80, None), (0.79, 1), (0.78, None)) == [2, 1, 3]


@given(st.lists(st.tuples(st.floats(0, 1), st.none() | st.integers(0, 9)), max_size=12))
def test_nothing_is_lost_and_nothing_passes_a_much_better_one(facts) -> None:
    facts = sorted(facts, key=lambda fact: -fact[0])
    numbers = ordered(*facts)
    assert sorted(numbers) == list(range(1, len(facts) + 1))
    for place, number in enumerate(numbers):
        for behind in numbers[place + 1 :]:
            assert facts[number - 1][0] >= EQUAL_SHARE_RATIO * facts[behind - 1][0]
