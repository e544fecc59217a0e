import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import InvalidRequest, PageTokenMismatch
from services.common.pagination import (
    check_page_size,
    decode_page_number,
    decode_page_token,
    encode_page_token,
)
from services.common.validation import Violations

# A position is an id that a store gave: no surrogates, no NUL, bounded.
positions = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=512)


@given(st.text(), positions)
def test_a_token_gives_back_its_position_to_the_same_request(request, position):
    assert decode_page_token(request, encode_page_token(request, position)) == position


@given(st.text(), st.text())
def test_a_token_is_bound_to_its_request(request, other):
    token = encode_page_token(request, "position")
    if request != other:
        with pytest.raises(PageTokenMismatch):
            decode_page_token(other, token)


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "ü",
        "e30=",
        base64.b64encode(b"[1]").decode(),
        base64.b64encode(b'["a",1]').decode(),
        "W" * 100_000,
    ],
)
def test_an_invented_token_is_refused(token):
    with pytest.raises(PageTokenMismatch):
        decode_page_token("request", token)


@pytest.mark.parametrize("position", ["\0", "\ud800"])
def test_a_forged_position_that_no_store_can_compare_is_refused(position):
    with pytest.raises(PageTokenMismatch):
        decode_page_token("request", encode_page_token("request", position))


def test_the_first_page_needs_no_token():
    assert decode_page_token("request", "") == ""


@pytest.mark.parametrize(("asked", "used"), [(0, 100), (1, 1), (1000, 1000), (5000, 1000)])
def test_a_page_has_a_default_and_a_largest_size(asked, used):
    assert check_page_size(asked, Violations()) == used


def test_a_negative_page_size_is_refused():
    violations = Violations()
    check_page_size(-1, violations)
    with pytest.raises(InvalidRequest, match="page_size"):
        violations.raise_found()


@given(st.text(), st.integers(0, 10**18 - 1))
def test_a_number_comes_back(request, number):
    assert decode_page_number(request, encode_page_token(request, str(number))) == number
    assert decode_page_number(request, "") is None


@pytest.mark.parametrize("position", ["-1", "+1", " 1", "1_0", "1.5", "a", "²", "٣", "1" * 19])
def test_what_is_no_number_is_refused(position):
    with pytest.raises(PageTokenMismatch):
        decode_page_number("request", encode_page_token("request", position))
