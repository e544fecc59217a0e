import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.balancer.core.models import InstalledModel, ServerReport
from services.balancer.core.names import model_key
from services.balancer.core.standing import Signal
from services.balancer.fleet import Fleet
from services.balancer.report import backend_health, fleet_health, fleet_models
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


def fleet_of(*digests):
    """Backends h0, h1, ... with one model of these digests."""
    fleet = Fleet(clock=SystemClock())
    for index in range(len(digests)):
        fleet.add(parse_endpoint(f"http://h{index}:1"))
    for backend, digest in zip(fleet.backends.values(), digests, strict=True):
        report_digest(fleet, backend, digest)
    return fleet


def report_digest(fleet, backend, digest):
    backend.checked_at = 0.0
    installed = (InstalledModel(name="m:latest", digest=digest * 64),)
    fleet.note_report(backend, ServerReport(version="0", installed=installed, loaded=()))
    fleet.signal(backend, Signal.CHECK_SUCCEEDED)


def drifted(fleet):
    health = fleet_health(fleet, SystemClock())
    return {each.backend_id for each in health.backends if each.drifted_models}


@pytest.mark.parametrize(
    ("digests", "expected"),
    [
        ("aaa", set()),
        ("aab", {"h2:1"}),
        ("abb", {"h0:1"}),
        ("ab", {"h1:1"}),
        ("abc", {"h1:1", "h2:1"}),
    ],
)
def test_who_has_another_variant_than_most_is_marked_and_gets_no_requests(digests, expected):
    fleet = fleet_of(*digests)
    assert drifted(fleet) == expected
    serving = fleet.needed_digest("m:latest")
    for index, digest in enumerate(digests):
        assert (serving in (None, digest * 64)) is (f"h{index}:1" not in expected)
        health = backend_health(fleet, fleet.backends[f"h{index}:1"], SystemClock())
        assert bool(health.drifted_models) is (f"h{index}:1" in expected)


def test_the_variant_that_serves_does_not_change_with_every_failure():
    fleet = fleet_of(*"aab")
    fleet.signal(fleet.backends["h0:1"], Signal.DRAINED)
    assert fleet.needed_digest("m:latest") == "a" * 64
    fleet.signal(fleet.backends["h1:1"], Signal.DRAINED)
    assert fleet.needed_digest("m:latest") == "b" * 64


def test_drift_is_logged_once_per_change(caplog):
    with caplog.at_level(logging.INFO, "services.balancer.drift"):
        fleet = fleet_of(*"baab")
        backends = list(fleet.backends.values())
        report_digest(fleet, backends[0], "b")
        assert [each.backends for each in caplog.records] == ["h0:1, h3:1"]
        report_digest(fleet, backends[0], "a")
        assert caplog.records[-1].backends == "h3:1"
        report_digest(fleet, backends[3], "a")
        assert caplog.records[-1].message == "backends agree on a model again"
        report_digest(fleet, backends[3], "a")
    assert len(caplog.records) == 3
