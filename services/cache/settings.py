"""What the cache service can be told."""

import re
from dataclasses import dataclass

from services.cache.core.store_address import StoreAddress, parse_store_url
from services.common import settings as settings_module
from services.common.server import CommonSettings

__all__ = ["DEVELOPMENT_PEPPER", "CacheSettings"]

DEVELOPMENT_PEPPER = "pannier-development-pepper"

# What keyed BLAKE2b accepts, and the least that cannot be guessed.
_PEPPER_BYTES = range(16, 65)


def _redis_url(value: str) -> str:
    url = value.strip()
    parse_store_url(url)
    return url


def _pepper(value: str) -> str:
    if len(value.encode()) not in _PEPPER_BYTES:
        raise ValueError("must have 16 to 64 bytes")
    return value


def _currency(value: str) -> str:
    code = value.strip()
    if not re.fullmatch("[A-Z]{3}", code):
        raise ValueError("must be three capital letters such as EUR")
    return code


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings(CommonSettings):
    """Settings of the cache service; the variables begin with `PANNIER_CACHE_`."""

    redis_url: str = settings_module.setting(
        _redis_url,
        "Redis or Valkey: one server, `redis://[user:password@]host:port`, `rediss://...` or "
        "`unix:///path`; a master behind Sentinels, `redis+sentinel://[user:password@]host:port,"
        "host:port/service`; a cluster, `redis+cluster://[user:password@]host:port,host:port`; "
        "over TLS with `rediss+`.",
        default="redis://127.0.0.1:6379",
        secret=True,
    )
    redis_sentinel_password: str = settings_module.setting(
        settings_module.text,
        "Password of the Sentinels themselves; empty where they want none.",
        default="",
        secret=True,
    )
    redis_embedding_database: int = settings_module.setting(
        settings_module.integer(0, 1023),
        "Logical database of embeddings and chunks; a cluster has one only.",
        default="0",
    )
    redis_inference_database: int = settings_module.setting(
        settings_module.integer(0, 1023),
        "Logical database of answers and of what controls the cache; a cluster has one only.",
        default="1",
    )
    redis_timeout_seconds: float = settings_module.setting(
        settings_module.duration_seconds("10ms", "5s"),
        "Longest time a call waits for Redis before it does without.",
        # Of the 120 ms that a caller of a frozen server may lose, a fifth or more is computing
        # where a hundred of them give up at once (measured).
        default="80ms",
    )
    redis_connect_timeout_seconds: float = settings_module.setting(
        settings_module.duration_seconds("10ms", "5s"),
        "Longest time for making a connection to Redis.",
        default="250ms",
    )
    redis_connection_limit: int = settings_module.setting(
        settings_module.integer(1, 1024),
        "Most connections for commands to each server and logical database.",
        default="32",
    )
    redis_stream_connection_limit: int = settings_module.setting(
        settings_module.integer(1, 1024),
        "Most connections that wait for streams, to each server and logical database; further "
        "readers of streams ask from time to time instead.",
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
    price_per_million_prompt_tokens: float = settings_module.setting(
        settings_module.number(0, 1e6),
        "What a million tokens of prompts cost, in units of `CURRENCY`; for reports of savings.",
        default="0",
    )
    price_per_million_completion_tokens: float = settings_module.setting(
        settings_module.number(0, 1e6),
        "What a million generated tokens cost, in units of `CURRENCY`; for reports of savings.",
        default="0",
    )
    currency: str = settings_module.setting(
        _currency,
        "What prices are in, three letters of ISO 4217; not reported where no price is set.",
        default="EUR",
    )
    semantic_threshold: float = settings_module.setting(
        settings_module.number(0.95, 1),
        "Least cosine similarity of two questions that may share an answer, 0.95 to 1; namespaces "
        "and callers can only raise it.",
        default="0.95",
    )
    semantic_error_budget_ratio: float = settings_module.setting(
        settings_module.number(0.0001, 0.5),
        "Share of wrong answers that hits on similar questions may have, 0.0001 to 0.5. While "
        "it is not proven to be kept, such answers are offered as candidates only.",
        default="0.01",
    )
    semantic_verification_ratio: float = settings_module.setting(
        settings_module.number(0, 1),
        "Share of answers to similar questions that callers are asked to verify, 0 to 1.",
        default="0.02",
    )
    semantic_memory_limit_bytes: int = settings_module.setting(
        settings_module.byte_size("1MiB", "64GiB"),
        "Most memory for questions and their vectors in this process; those in use least recently "
        "are read again when they are needed.",
        default="256MiB",
    )
    semantic_tenant_entry_limit: int = settings_module.setting(
        settings_module.integer(1, 1_000_000),
        "Most questions of a tenant; the oldest go first.",
        default="20000",
    )
    local_semantic_limit_bytes: int = settings_module.setting(
        settings_module.byte_size("0B", "64GiB"),
        "Most memory for answers to similar questions in this process; 0B for none.",
        default="32MiB",
    )

    @property
    def redis_address(self) -> StoreAddress:
        """Where Redis is, and of which shape."""
        return parse_store_url(self.redis_url)
