"""Which texts travel together, and who gets what of the reply."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.balancer.core.batches import (
    MAXIMUM_CHARACTERS,
    MAXIMUM_TEXTS,
    Dimensions,
    Limits,
    cut,
    join,
    token_shares,
)

TEXTS = st.lists(st.text(alphabet="abc", min_size=1, max_size=4), min_size=1, max_size=6)


def sizes(pieces):
    return [piece.stop - piece.start for piece in pieces]


@pytest.mark.parametrize(
    ("text_count", "slot_count", "expected"),
    [
        (1, 8, [1]),
        (8, 8, [8]),
        (9, 8, [4, 5]),
        (128, 8, [8] * 16),
        (256, 8, [16] * 16),
        (512, 8, [32] * 16),
        (512, 64, [8] * 64),
        (512, 1, [32] * 16),
        (40, 1, [20, 20]),
    ],
)
def test_a_request_is_cut_into_two_pieces_per_slot_of_8_to_32_texts(
    text_count, slot_count, expected
):
    assert sizes(cut([10] * text_count, slot_count=slot_count)) == expected


def test_a_piece_has_at_most_32_000_characters_or_one_text():
    assert sizes(cut([16_000] * 5, slot_count=1)) == [1, 2, 2]
    assert sizes(cut([10, 90_000, 10, 10], slot_count=1)) == [1, 1, 1, 1]
    assert sizes(cut([10] * 30 + [31_900, 10], slot_count=1)) == [16, 14, 2]


def test_pieces_are_smaller_where_backends_are_slow():
    assert sizes(cut([1000] * 20, slot_count=1, character_count=4500.0)) == [4] * 5
    assert sizes(cut([1000] * 9, slot_count=1, character_count=4500.0)) == [3, 3, 3]
    assert sizes(cut([1000] * 3, slot_count=1, character_count=0.5)) == [1, 1, 1]


@given(
    st.lists(st.integers(1, 40_000), min_size=1, max_size=600),
    st.integers(1, 64),
)
def test_pieces_hold_each_text_once_in_order_and_keep_the_limits(lengths, slot_count):
    pieces = cut(lengths, slot_count=slot_count)
    assert [index for piece in pieces for index in range(len(lengths))[piece]] == list(
        range(len(lengths))
    )
    for piece, size in zip(pieces, sizes(pieces), strict=True):
        assert 1 <= size <= MAXIMUM_TEXTS
        assert size == 1 or sum(lengths[piece]) <= MAXIMUM_CHARACTERS


def test_those_who_wait_come_along_in_their_order_until_one_does_not_fit():
    waiting = [["b"], ["c", "d"], ["e"]]
    assert join(["a"], waiting, Limits(text_count=3)) == ([0], ["a", "b"])
    assert join(["a"], waiting, Limits(text_count=4)) == ([0, 1], ["a", "b", "c", "d"])
    assert join(["a"], waiting, Limits(character_count=4.5)) == ([0, 1], ["a", "b", "c", "d"])


def test_who_brings_no_new_text_always_comes_along():
    waiting = [["b", "c"], ["a"], ["b"]]
    assert join(["a"], waiting, Limits(text_count=2)) == ([1], ["a"])
    assert join(["a"], waiting, Limits(text_count=3)) == ([0, 1, 2], ["a", "b", "c"])


@given(TEXTS.map(lambda texts: list(dict.fromkeys(texts))), st.lists(TEXTS), st.integers(1, 12))
def test_a_joint_call_has_each_text_of_its_members_once(texts, waiting, limit):
    places, joined = join(texts, waiting, Limits(text_count=limit))
    assert joined[: len(texts)] == texts
    assert len(set(joined)) == len(joined) <= max(limit, len(texts))
    assert set(joined) == set(texts).union(*(waiting[place] for place in places))
    assert places == sorted(set(places))


def test_tokens_are_shared_by_length_and_shared_texts_by_those_who_share_them():
    assert token_shares(90, ["aa", "b"], [["aa"], ["b"]]) == [60, 30]
    assert token_shares(90, ["aa", "b"], [["aa", "b"], ["aa"]]) == [60, 30]
    assert token_shares(10, ["a", "b", "c"], [["a"], ["b"], ["c"]]) == [4, 3, 3]


@given(st.integers(0, 10_000), st.lists(TEXTS, min_size=1, max_size=8))
def test_shares_of_tokens_add_up(token_count, owned):
    owned = [list(dict.fromkeys(each)) for each in owned]
    texts = list(dict.fromkeys(text for each in owned for text in each))
    shares = token_shares(token_count, texts, owned)
    assert sum(shares) == token_count
    assert min(shares) >= 0


def replies(cut_to=None, **said):
    """What replies of one model have had, by backend."""
    learned = Dimensions()
    for backend_id, dimensions in said.items():
        for dimension in dimensions:
            learned.note("m", cut_to, backend_id, dimension)
    return learned


def test_vectors_are_wrong_that_are_unlike_those_of_most_backends():
    learned = replies(liar=[2] * 3)
    assert not learned.is_wrong("m", None, 2, 0)
    learned.note("m", None, "b", 384)
    # One says this, one says that.
    assert not learned.is_wrong("m", None, 2, 0)
    assert not learned.is_wrong("m", None, 384, 0)
    learned.note("m", None, "c", 384)
    assert learned.is_wrong("m", None, 2, 0)
    assert not learned.is_wrong("m", None, 384, 0)
    # Other models, and vectors cut to a length, are another matter.
    assert not learned.is_wrong("n", None, 2, 0)
    learned.note("m", 64, "liar", 64)
    assert not learned.is_wrong("m", 64, 64, 0)


@given(st.lists(st.booleans(), max_size=200), st.integers(1, 3))
def test_backends_that_lie_less_often_than_not_never_get_their_way(lies, liar_count):
    learned = replies(honest=[384])
    for number, lie in enumerate(lies):
        liar = f"liar{number % liar_count}"
        learned.note("m", None, liar, 384)
        learned.note("m", None, liar, 2 if lie else 384)
        assert not learned.is_wrong("m", None, 384, 0)
        assert learned.is_wrong("m", None, 2, 0)


def test_a_backend_that_has_only_just_come_is_not_believed_against_many_replies():
    learned = replies(honest=[384] * 8, liar=[2])
    assert not learned.is_wrong("m", None, 2, 0)
    learned = replies(honest=[384] * 9, liar=[2])
    assert learned.is_wrong("m", None, 2, 0)
    assert learned.is_wrong("m", None, 2, 2)


def test_where_as_many_stand_for_each_length_the_description_decides():
    learned = replies(a=[2], b=[384])
    assert learned.is_wrong("m", None, 2, 384)
    assert not learned.is_wrong("m", None, 384, 384)
    assert learned.is_wrong("m", None, 384, 2)
    # A description against which nobody has spoken is no more than that.
    assert not replies(a=[2]).is_wrong("m", None, 2, 384)
    assert replies(a=[384], b=[64], cut_to=64).is_wrong("m", 64, 384, 384)


def test_what_no_longer_holds_is_forgotten():
    learned = replies(a=[*[384] * 1000, *[768] * 26])
    assert learned.is_wrong("m", None, 384, 0)


def test_between_two_lengths_most_backends_decide_then_the_description_then_the_number():
    assert Dimensions().rightful("m", None, {2: 5, 384: 5}, 384) == 384
    assert Dimensions().rightful("m", 64, {64: 1, 384: 5}, 384) == 64
    assert Dimensions().rightful("m", None, {2: 6, 384: 5}, 0) == 2
    learned = replies(a=[2], b=[384], c=[384])
    assert learned.rightful("m", None, {2: 6, 384: 5}, 2) == 384


def test_only_so_many_models_are_remembered():
    learned = Dimensions()
    for number in range(1001):
        learned.note(f"m{number}", None, "a", 2)
    assert learned.rightful("m0", None, {2: 1, 3: 2}, 0) == 3
    assert learned.rightful("m1", None, {2: 1, 3: 2}, 0) == 2
