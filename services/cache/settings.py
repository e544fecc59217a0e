"""What the cache service can be told."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from services.common import settings as settings_module
from services.common.server import CommonSettings

__all__ = ["DEVELOPMENT_PEPPER", "CacheSettings", "redis_is_local"]

DEVELOPMENT_PEPPER = "pannier-development-pepper"

_SCHEMES = ("redis", "rediss", "unix")
# What keyed BLAKE2b accepts, and the least that cannot be guessed.
_PEPPER_BYTES = range(16, 65)


def _redis_url(value: str) -> str:
    url = value.strip()
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not (parts.netloc or parts.path):
        raise ValueError("must be a URL such as redis://127.0.0.1:6379, rediss:// or unix://")
    if parts.query or (parts.scheme != "unix" and parts.path not in ("", "/")):
        raise ValueError("must not name a database or options; they have settings of their own")
    return url


def _pepper(value: str) -> str:
    if len(value.encode()) not in _PEPPER_BYTES:
        raise ValueError("must have 16 to 64 bytes")
    return value


def redis_is_local(url: str) -> bool:
    """Returns whether only this machine reaches the Redis server of that address."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return parts.scheme == "unix" or host in ("localhost", "::1") or host.startswith("127.")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings(CommonSettings):
    """Settings of the cache service; the variables begin with `PANNIER_CACHE_`."""

    redis_url: str = settings_module.setting(
        _redis_url,
        "Redis server, `redis://[user:password@]host:port`, `rediss://...` or `unix:///path`.",
        default="redis://127.0.0.1:6379",
        secret=True,
    )
    redis_embedding_database: int = settings_module.setting(
        settings_module.integer(0, 1023),
        "Logical database of embeddings and chunks.",
        default="0",
    )
    redis_inference_database: int = settings_module.setting(
        settings_module.integer(0, 1023),
        "Logical database of answers.",
        default="1",
    )
    redis_timeout_seconds: float = settings_module.setting(
        settings_module.duration_seconds("10ms", "5s"),
        "Longest time a call waits for Redis before it does without.",
        default="100ms",
    )
    redis_connect_timeout_seconds: float = settings_module.setting(
        settings_module.duration_seconds("10ms", "5s"),
        "Longest time for making a connection to Redis.",
        default="250ms",
    )
    redis_connection_limit: int = settings_module.setting(
        settings_module.integer(1, 1024),
        "Most connections to each logical database.",
        default="32",
    )
    local_embedding_limit_bytes: int = settings_module.setting(
        settings_module.byte_size("0B", "64GiB"),
        "Most memory for embeddings in this process; 0B for none.",
        default="32MiB",
    )
    local_inference_limit_bytes: int = settings_module.setting(
        settings_module.byte_size("0B", "64GiB"),
        "Most memory for answers in this process; 0B for none.",
        default="64MiB",
    )
    local_chunk_limit_bytes: int = settings_module.setting(
        settings_module.byte_size("0B", "64GiB"),
        "Most memory for chunks in this process; 0B for none.",
        default="16MiB",
    )
    key_pepper: str = settings_module.setting(
        _pepper,
        "Secret that keys and signatures are made with, 16 to 64 bytes, the same for all "
        "replicas; another one makes all entries unreadable.",
        default=DEVELOPMENT_PEPPER,
        secret=True,
    )
