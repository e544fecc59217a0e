"""Settings of the web search are understood or refused before the service starts."""

import pytest

from services.common.settings import SettingsError, load
from services.rag.settings import RagSettings
from services.rag.web_settings import domain, http_header, json_pointer, web_address, web_host

REQUIRED = {"PANNIER_RAG_DATABASE_URL": "postgresql://localhost/pannier"}


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (web_address, "", ""),
        (web_address, " http://searxng:8080 ", "http://searxng:8080"),
        (web_address, "https://a.example/find?q={query}", "https://a.example/find?q={query}"),
        (http_header, "X-Key: secret", "X-Key: secret"),
        (json_pointer, "", ""),
        (json_pointer, "/web~1pages/0/items", "/web~1pages/0/items"),
        (domain, "Example.ORG.", "example.org"),
        (domain, "*.example.org", "example.org"),
        (web_host, "Wiki.Intranet", "wiki.intranet"),
        (web_host, "127.0.0.1:8080", "127.0.0.1:8080"),
        (web_host, "[::1]:8080", "::1:8080"),
    ],
)
def test_what_is_meant_is_understood(parse, text, value):
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (web_address, "searxng:8080"),
        (web_address, "http://user:secret@searxng"),
        (web_address, "file:///etc/passwd"),
        (http_header, "no colon"),
        (http_header, "X-Key: a\r\nHost: b"),
        (json_pointer, "results"),
        (json_pointer, "/a~2"),
        (domain, "http://example.org"),
        (web_host, "wiki:99999"),
        (web_host, "http://wiki"),
    ],
)
def test_what_is_not_understood_is_refused(parse, text):
    with pytest.raises(ValueError, match="must be"):
        parse(text)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"WEB_SEARXNG_URL": "http://a", "WEB_SEARCH_URL": "http://b/{query}"}, "Only one"),
        ({"WEB_SEARCH_URL": "http://b/"}, "{query}"),
        ({"WEB_PORTS": ""}, "at least 1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, told):
    given = {f"PANNIER_RAG_{name}": value for name, value in settings.items()}
    with pytest.raises(SettingsError, match=told):
        load(RagSettings, {**REQUIRED, **given}, prefix="PANNIER_RAG_")


def test_without_settings_the_web_is_not_searched_and_a_key_is_never_shown():
    settings = load(RagSettings, REQUIRED, prefix="PANNIER_RAG_")
    assert not settings.web_searxng_url
    assert not settings.web_search_url
    assert (settings.web_ports, settings.web_private_hosts) == ((80, 443), ())
    given = {
        "PANNIER_RAG_WEB_SEARCH_URL": "https://a.example/?key=hush&q={query}",
        "PANNIER_RAG_WEB_SEARCH_HEADER": "X-Key: hush",
    }
    assert "hush" not in repr(load(RagSettings, {**REQUIRED, **given}, prefix="PANNIER_RAG_"))
