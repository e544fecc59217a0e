"""What the rag service can be told."""

from dataclasses import dataclass

from services.common.server import CommonSettings
from services.common.settings import (
    byte_size,
    duration_seconds,
    host_and_port,
    integer,
    number,
    setting,
    text,
)

__all__ = ["RagSettings"]

_SMALLEST_REQUEST_LIMIT = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RagSettings(CommonSettings):
    """Settings of the rag service, from variables `PANNIER_RAG_*`."""

    database_url: str = setting(
        text,
        "PostgreSQL with pgvector, `postgresql://user:password@host:port/database`.",
        secret=True,
    )
    database_pool_size: int = setting(
        integer(2, 200), "Most connections to PostgreSQL.", default="16"
    )
    database_time_limit_seconds: float = setting(
        duration_seconds("100ms", "10m"), "Longest time of one statement.", default="30s"
    )
    cache_address: str = setting(
        host_and_port, "The cache service, `host:port`.", default="127.0.0.1:50052"
    )
    cache_time_limit_seconds: float = setting(
        duration_seconds("10ms", "10s"),
        "Longest time of one call to the cache; after that it is done without.",
        default="250ms",
    )
    cache_wait_limit_seconds: float = setting(
        duration_seconds("0s", "5m"),
        "Longest wait for an answer that is just being generated for another call; after that it "
        "is generated twice. Never more than half of what is left of the deadline.",
        default="30s",
    )
    balancer_address: str = setting(
        host_and_port, "The balancer service, `host:port`.", default="127.0.0.1:50053"
    )
    chat_model: str = setting(
        text,
        "Model that answers; empty for the first of the fleet that generates text.",
        default="",
    )
    embedding_model: str = setting(
        text,
        "Model that embeds new collections; empty for the first of the fleet that embeds.",
        default="",
    )
    embedding_time_limit_seconds: float = setting(
        duration_seconds("100ms", "10m"),
        "Longest time to embed a question; after that passages are found by words alone.",
        default="10s",
    )
    context_token_count: int = setting(
        integer(512, 1_048_576),
        "Context window asked of the model and filled with passages, in tokens.",
        default="8192",
    )
    answer_token_count: int = setting(
        integer(16, 65_536),
        "Longest answer where the caller sets no limit, in tokens.",
        default="512",
    )
    temperature: float = setting(
        number(0, 2), "Randomness of answers where the caller sets none.", default="0"
    )
    chunk_token_count: int = setting(
        integer(50, 2000), "Size that chunks are cut to, in estimated tokens.", default="200"
    )
    maximum_chunk_token_count: int = setting(
        integer(50, 4000),
        "Largest chunk, in estimated tokens; stay below the embedding model's context.",
        default="240",
    )
    maximum_document_bytes: int = setting(
        byte_size("1KiB", "256MiB"), "Largest document accepted.", default="16MiB"
    )
    ingest_document_concurrency: int = setting(
        integer(1, 64), "Documents of one call worked on at the same time.", default="4"
    )
    ingest_content_bytes: int = setting(
        byte_size("1KiB", "64GiB"),
        "Content of documents worked on at the same time, over all calls; others wait. "
        "The work takes about 50 times as much memory.",
        default="64MiB",
    )
    embedding_batch_size: int = setting(
        integer(1, 256), "Texts embedded by one call to the balancer.", default="16"
    )
    embedding_concurrency: int = setting(
        integer(1, 256), "Calls that embed for ingestion at the same time.", default="16"
    )

    def __post_init__(self) -> None:
        """Checks what concerns several settings."""
        CommonSettings.__post_init__(self)
        if self.maximum_request_bytes < _SMALLEST_REQUEST_LIMIT:
            raise ValueError("MAXIMUM_REQUEST_BYTES must be at least 2MiB: parts have up to 1 MiB")
        if self.chunk_token_count > self.maximum_chunk_token_count:
            raise ValueError("CHUNK_TOKEN_COUNT must not exceed MAXIMUM_CHUNK_TOKEN_COUNT")
        if self.answer_token_count * 2 > self.context_token_count:
            raise ValueError("ANSWER_TOKEN_COUNT must be at most half of CONTEXT_TOKEN_COUNT")
