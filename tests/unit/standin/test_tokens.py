"""Tokens as pieces of text."""

from hypothesis import given
from hypothesis import strategies as st

from services.standin.core.tokens import CLS, SEP, TokenCodec, cut_at_stop, cut_middle
from services.standin.server import find_weights

CODEC = TokenCodec(find_weights() / "tokenizer.json")


@given(st.text(min_size=1))
def test_the_pieces_of_a_text_are_the_text(text):
    pieces = CODEC.split(text)
    assert len(pieces.ids) == len(pieces.texts) == CODEC.count(text)
    if pieces.texts:
        assert "".join(pieces.texts) == text


def test_pieces_carry_the_blank_before_them():
    assert CODEC.split("Hello big world.").texts == ["Hello", " big", " world", "."]


def test_encoded_texts_have_their_special_tokens_and_full_length():
    [ids] = CODEC.encode(["word " * 1000])
    assert (ids[0], ids[-1], len(ids)) == (CLS, SEP, 1002)


def test_a_prompt_that_fits_is_not_cut():
    pieces = CODEC.split("one two three")
    assert cut_middle(pieces, context_tokens=4, keep_tokens=4) == "one two three"


def test_a_prompt_that_does_not_fit_keeps_its_head_and_its_end():
    words = " ".join(f"{number:03d}" for number in range(200))
    cut = cut_middle(CODEC.split(words), context_tokens=50, keep_tokens=4)
    assert cut.startswith("000")
    assert cut.endswith("199")
    assert CODEC.count(cut) < 50


def test_the_earliest_stop_text_ends_an_answer_and_is_not_in_it():
    assert cut_at_stop("one two three", ("three", " two")) == "one"
    assert cut_at_stop("one two three", ()) == "one two three"
