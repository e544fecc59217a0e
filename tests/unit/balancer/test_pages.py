import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.balancer.core.pages import page_of
from services.common.errors import PageTokenMismatch


def page(items, size, token="", request="ListModels"):
    return page_of(items, key=lambda item: item, size=size, token=token, request=request)


@given(st.lists(st.text(), unique=True).map(sorted), st.integers(1, 10))
def test_pages_hold_every_item_once_and_in_order(items, size):
    seen, token = [], ""
    while True:
        found, token = page(items, size, token)
        assert len(found) <= size
        seen += found
        if not token:
            break
    assert seen == items


def test_an_item_that_goes_between_two_pages_shifts_nothing():
    _, token = page(["a", "b", "c", "d"], 2)
    assert page(["c", "d"], 2, token) == (["c", "d"], "")


@given(st.text())
def test_a_token_that_was_not_issued_is_refused(token):
    if token:
        with pytest.raises(PageTokenMismatch):
            page(["a", "b"], 1, token)


def test_a_token_of_another_request_is_refused():
    _, token = page(["a", "b"], 1)
    with pytest.raises(PageTokenMismatch):
        page(["a", "b"], 1, token, request="Other")
