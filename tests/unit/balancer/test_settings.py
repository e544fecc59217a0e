import pytest

from services.balancer.settings import BalancerSettings, parse_endpoint
from services.common.settings import SettingsError, load


def settings(**values):
    environment = {f"PANNIER_BALANCER_{name}": value for name, value in values.items()}
    return load(BalancerSettings, environment, prefix="PANNIER_BALANCER_")


def test_backends_are_required():
    with pytest.raises(SettingsError, match="PANNIER_BALANCER_BACKENDS is not set"):
        settings()
    with pytest.raises(SettingsError, match="at least 1"):
        settings(BACKENDS=" , ")


def test_a_backend_is_known_by_host_and_port():
    found = settings(BACKENDS="http://127.0.0.1:11500/, https://Ollama-1.example:443").backends
    assert [each.backend_id for each in found] == ["127.0.0.1:11500", "ollama-1.example:443"]
    assert [each.url for each in found] == [
        "http://127.0.0.1:11500",
        "https://ollama-1.example:443",
    ]


def test_an_ipv6_backend_keeps_its_brackets_in_the_id():
    endpoint = parse_endpoint("http://[::1]:11434")
    assert (endpoint.backend_id, endpoint.host, endpoint.port) == ("[::1]:11434", "::1", 11434)


@pytest.mark.parametrize(
    "value",
    ["", "127.0.0.1:1", "http://host", "http://host:0", "http://host:99999", "ftp://host:1",
     "http://u:p@host:1", "http://host:1/api", "http://host:1?x=1", "http://:1"],
)  # fmt: skip
def test_what_is_no_plain_address_is_refused(value):
    with pytest.raises(ValueError, match="must be http://host:port"):
        parse_endpoint(value)


def test_a_backend_named_twice_is_refused():
    with pytest.raises(SettingsError, match="more than once: h:1"):
        settings(BACKENDS="http://h:1,https://H:1")


def test_more_than_64_backends_are_refused():
    with pytest.raises(SettingsError, match="the limit is 64"):
        settings(BACKENDS=",".join(f"http://h:{port}" for port in range(1, 66)))


def test_the_rules_of_every_service_hold_too():
    with pytest.raises(SettingsError, match="no loopback address"):
        settings(BACKENDS="http://h:1", GRPC_ADDRESS="0.0.0.0:50053")


@pytest.mark.parametrize("name", ["localhost", "localhost:", "localhost:x", ":80", "a b:80"])
def test_a_name_to_look_up_needs_a_port(name):
    with pytest.raises(SettingsError, match="BACKENDS_DNS_NAME"):
        settings(BACKENDS="http://h:1", BACKENDS_DNS_NAME=name)
    assert settings(BACKENDS="http://h:1", BACKENDS_DNS_NAME="h:1").backends_dns_name == "h:1"


@pytest.mark.parametrize("value", ["http://user:secret@h:1", "h:1,http://secret@h:2/x@y"])
def test_a_password_in_an_address_is_refused_and_not_repeated(value):
    with pytest.raises(ValueError, match="must be http://host:port") as refused:
        parse_endpoint(value)
    assert "secret" not in str(refused.value)
    with pytest.raises(SettingsError) as refused_settings:
        settings(BACKENDS=value)
    assert "secret" not in str(refused_settings.value)
