"""What a reader has is never shown again, and never contradicted."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.rag.core.replay import Replay

TEXTS = st.text("ab ", max_size=20)


def pieces(text, cuts):
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    return [text[start:end] for start, end in pairwise(places)]


@given(TEXTS, TEXTS, st.lists(st.integers(0, 40)))
def test_the_same_text_goes_on_where_it_broke_off(shown, rest, cuts):
    replay = Replay(shown)
    new = "".join(replay.feed(piece) for piece in pieces(shown + rest, cuts))
    assert new == rest
    assert not replay.deviates
    assert not replay.is_behind


@given(TEXTS, TEXTS, st.lists(st.integers(0, 40)))
def test_nothing_is_shown_of_a_text_that_begins_otherwise(shown, other, cuts):
    replay = Replay(shown)
    new = "".join(replay.feed(piece) for piece in pieces(other, cuts))
    if other.startswith(shown):
        assert new == other[len(shown) :]
    else:
        assert new == ""
        assert replay.deviates or replay.is_behind
        assert replay.deviates != shown.startswith(other)
