"""Settings are checked before anything starts, and secrets stay secret."""

import pytest

from services.cache.core.store_address import Topology
from services.cache.settings import CacheSettings
from services.common.settings import SettingsError, load

PREFIX = "PANNIER_CACHE_"


def loaded(**variables: str) -> CacheSettings:
    environment = {PREFIX + name.upper(): value for name, value in variables.items()}
    return load(CacheSettings, environment, prefix=PREFIX)


def test_the_defaults_are_those_of_one_machine() -> None:
    settings = loaded()
    assert settings.redis_url == "redis://127.0.0.1:6379"
    assert (settings.redis_embedding_database, settings.redis_inference_database) == (0, 1)
    assert settings.redis_timeout_seconds == 0.08


@pytest.mark.parametrize(
    "url",
    [
        "redis://cache.example:6379",
        "redis://user:secret@cache.example",
        "rediss://cache.example:6380/",
        "unix:///run/redis.sock",
        "redis+sentinel://user:secret@a:26379,b:26379/main",
        "redis+cluster://a:6379,b:6379",
    ],
)
def test_addresses_of_redis_are_accepted(url: str) -> None:
    assert loaded(redis_url=url).redis_url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:6379",
        "http://127.0.0.1",
        "redis://",
        "redis://127.0.0.1/3",
        "redis://127.0.0.1?db=3",
        "redis+sentinel://127.0.0.1:26379",
    ],
)
def test_other_addresses_are_refused_without_being_shown(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        loaded(redis_url=url)
    assert "REDIS_URL=***" in str(caught.value)


@pytest.mark.parametrize("pepper", ["too short", "x" * 65, "ü" * 33])
def test_a_pepper_of_the_wrong_length_is_refused(pepper: str) -> None:
    with pytest.raises(SettingsError, match="16 to 64 bytes"):
        loaded(key_pepper=pepper)


def test_secrets_are_not_printed() -> None:
    settings = loaded(
        redis_url="redis://u:hush@example",
        redis_sentinel_password="hush",
        key_pepper="hush" * 4,
    )
    assert "hush" not in repr(settings)


def test_the_address_of_redis_is_read_from_its_url() -> None:
    address = loaded(redis_url="redis+sentinel://a:1,b:2/main").redis_address
    assert address.topology is Topology.SENTINEL
    assert address.service == "main"
