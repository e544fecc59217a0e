"""Host and Origin headers."""

import pytest

from services.standin.core.hosts import allows_host, allows_origin, is_loopback


@pytest.mark.parametrize(
    "header",
    [
        "",
        "localhost:11434",
        "127.0.0.1",
        "[::1]:11434",
        "10.0.0.7:80",
        "0.0.0.0",
        "box.local",
        "Foo.Internal:1",
        "a.localhost",
        "OWN-name:5",
    ],
)
def test_a_host_of_this_machine_or_network_is_taken(header):
    assert allows_host(header, "own-name")


@pytest.mark.parametrize("header", ["ollama-1:11434", "example.com", "8.8.8.8", "local"])
def test_any_other_host_is_refused(header):
    assert not allows_host(header, "own-name")


@pytest.mark.parametrize(
    "header", ["", "http://localhost", "https://127.0.0.1:8443", "app://x", "tauri://localhost"]
)
def test_a_local_origin_is_taken(header):
    assert allows_origin(header)


@pytest.mark.parametrize("header", ["http://example.com", "null", "ftp://localhost"])
def test_any_other_origin_is_refused(header):
    assert not allows_origin(header)


def test_loopback_addresses_are_known():
    assert [is_loopback(each) for each in ("127.0.0.1", "::1", "localhost")] == [True] * 3
    assert [is_loopback(each) for each in ("0.0.0.0", "10.0.0.1", "box")] == [False] * 3
