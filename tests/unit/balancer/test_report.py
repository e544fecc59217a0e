import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.balancer.core.models import InstalledModel, ServerReport
from services.balancer.core.names import model_key
from services.balancer.fleet import Fleet
from services.balancer.report import fleet_models
from services.balancer.settings import parse_endpoint
from services.common.clock import SystemClock
from services.common.errors import PageTokenMismatch
from services.common.pagination import encode_page_token

names = st.from_regex(r"[a-z0-9_][a-z0-9_.-]{0,9}(:[a-z0-9]{1,4})?", fullmatch=True)


def fleet_with(*names):
    fleet = Fleet(clock=SystemClock())
    backend = fleet.add(parse_endpoint("http://backend:11434"))
    installed = tuple(InstalledModel(name=each, digest="a" * 64) for each in names)
    fleet.note_report(backend, ServerReport(version="0", installed=installed, loaded=()))
    return fleet


def page(fleet, size, token=""):
    response = fleet_models(fleet, page_size=size, page_token=token)
    return [each.name for each in response.models], response.next_page_token


@given(st.lists(names, unique_by=model_key), st.integers(1, 10))
def test_pages_hold_every_model_once_and_in_order(names, size):
    fleet = fleet_with(*names)
    seen, token = [], ""
    while True:
        found, token = page(fleet, size, token)
        assert len(found) <= size
        seen += found
        if not token:
            break
    assert seen == sorted(names, key=model_key)


def test_a_model_that_goes_between_two_pages_shifts_nothing():
    _, token = page(fleet_with("a", "b", "c", "d"), 2)
    assert page(fleet_with("c", "d"), 2, token) == (["c", "d"], "")


@given(st.text(min_size=1))
def test_a_token_that_was_not_issued_is_refused(token):
    with pytest.raises(PageTokenMismatch):
        page(fleet_with("a", "b"), 1, token)


def test_a_token_of_another_list_is_refused():
    with pytest.raises(PageTokenMismatch):
        page(fleet_with("a", "b"), 1, encode_page_token("collections", "a"))
