"""What the rag service can be told."""

from dataclasses import dataclass

from services.common.server import CommonSettings
from services.common.settings import (
    boolean,
    byte_size,
    choice,
    comma_separated,
    duration_seconds,
    host_and_port,
    integer,
    number,
    setting,
    text,
)
from services.rag.core.experiment import Experiment, parse_experiments
from services.rag.core.prices import NO_PRICES, PriceTable, currency_code, parse_prices
from services.rag.metrics import MOST_TENANTS
from services.rag.web_settings import (
    domain,
    http_header,
    json_pointer,
    web_address,
    web_host,
)

__all__ = ["RagSettings"]

_SMALLEST_REQUEST_LIMIT = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RagSettings(CommonSettings):
    """Settings of the rag service, from variables `PANNIER_RAG_*`."""

    database_url: str = setting(
        text,
        "PostgreSQL with pgvector, `postgresql://user:password@host:port/database`; reached "
        "directly or through a pooler that lends whole sessions.",
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
        integer(50, 2000),
        "Size that chunks are cut to, in estimated tokens; less where the embedding model reads "
        "less.",
        default="400",
    )
    maximum_chunk_token_count: int = setting(
        integer(50, 4000),
        "Largest chunk, in estimated tokens, code and tables apart, which are split from half as "
        "much again; never more than the embedding model reads.",
        default="512",
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
    search_time_limit_seconds: float = setting(
        duration_seconds("10ms", "10m"),
        "Longest time of one search by meaning or by words; after that the other one answers "
        "alone. Never more than half of what is left of the deadline.",
        default="10s",
    )
    rerank_model: str = setting(
        text,
        "Cross-encoder that orders passages: a directory with model.onnx and tokenizer.json, or "
        "the name of a model in the Hugging Face cache of this machine. Empty for none.",
        default="",
    )
    rerank_cache_directory: str = setting(
        text, "The Hugging Face cache of this machine.", default="~/.cache/huggingface/hub"
    )
    rerank_provider: str = setting(
        choice("cpu", "cuda"), "What the cross-encoder runs on.", default="cpu"
    )
    rerank_chat_model: str = setting(
        text,
        "Model of the fleet that orders passages by how likely it says yes to each, where there "
        "is no cross-encoder; wants a larger time limit. Empty for none.",
        default="",
    )
    rerank_time_limit_seconds: float = setting(
        duration_seconds("10ms", "5m"),
        "Longest time to order passages; what is not judged by then keeps its place. Never more "
        "than half of what is left of the deadline.",
        default="400ms",
    )
    rerank_passage_count: int = setting(
        integer(1, 200), "Passages of one search that are judged at the most.", default="40"
    )
    stream_heartbeat_seconds: float = setting(
        duration_seconds("10ms", "10m"),
        "After how long without an event a stream says that work goes on.",
        default="10s",
    )
    resumable_grace_seconds: float = setting(
        duration_seconds("0s", "10m"),
        "How long a resumable answer is worked on that nobody reads.",
        default="30s",
    )
    resumable_retention_seconds: float = setting(
        duration_seconds("0s", "1h"),
        "How long the events of a resumable answer are kept after its end.",
        default="60s",
    )
    resumable_answer_count: int = setting(
        integer(0, 100_000),
        "Most resumable answers, under way or kept; what is asked for beyond is not resumable.",
        default="500",
    )
    resumable_answer_bytes: int = setting(
        byte_size("64KiB", "16GiB"),
        "Most memory for the events of resumable answers; one answer, resumable or not, may have "
        "an eighth of it.",
        default="32MiB",
    )
    understanding_model: str = setting(
        text,
        "Model that rewords questions and sums up conversations, best a small one; empty for the "
        "one that answers.",
        default="",
    )
    rewrite_time_limit_seconds: float = setting(
        duration_seconds("10ms", "1m"),
        "Longest time to reword a question of a conversation; after that it is taken as it is. "
        "Never more than a quarter of what is left of the deadline.",
        default="1500ms",
    )
    expansion_time_limit_seconds: float = setting(
        duration_seconds("10ms", "1m"),
        "Longest time to find other wordings of a question; after that there are none. Never more "
        "than a quarter of what is left of the deadline.",
        default="3s",
    )

    document_process_count: int = setting(
        integer(1, 64),
        "Processes that read large and packed documents, and so documents of these kinds read at "
        "the same time; they start when they are needed.",
        default="2",
    )
    document_time_limit_seconds: float = setting(
        duration_seconds("1s", "1h"), "Longest time to read one document.", default="120s"
    )
    document_memory_limit_bytes: int = setting(
        byte_size("256MiB", "64GiB"), "Most memory to read one document.", default="2GiB"
    )
    ingest_embedding_time_limit_seconds: float = setting(
        duration_seconds("100ms", "1h"),
        "Longest time to embed the texts of one call for ingestion; after that the document is "
        "stored without these vectors, which follow later.",
        default="60s",
    )
    ingest_job_document_concurrency: int = setting(
        integer(1, 64),
        "Documents of background jobs that this replica works on at the same time.",
        default="4",
    )
    ingest_job_lease_seconds: float = setting(
        duration_seconds("1s", "1h"),
        "After how long without a sign of life a document of a job goes to another replica.",
        default="30s",
    )
    ingest_job_retention_seconds: float = setting(
        duration_seconds("1m", "365d"),
        "How long jobs and their results are kept after their end.",
        default="7d",
    )
    ingest_backlog_bytes: int = setting(
        byte_size("1KiB", "1024GiB"),
        "Most content that the jobs of one tenant may hold; more is refused.",
        default="4GiB",
    )

    database_role: str = setting(
        text,
        "Role that work for a tenant runs under in PostgreSQL, bound by row-level security; made "
        "where it does not exist. Set to nothing, tenants are kept apart by the statements alone.",
        default="pannier_rag",
    )
    exact_scan_chunk_count: int = setting(
        integer(100, 10_000_000),
        "Up to so many chunks are compared with a question one by one; larger collections get an "
        "approximate index.",
        default="20000",
    )
    keyword_posting_limit: int = setting(
        integer(1000, 100_000_000),
        "Where the words of a question are in more chunks than this, all words together, the most "
        "common ones are left out; the three rarest always count.",
        default="200000",
    )

    prices: PriceTable = setting(  # noqa: RUF009 - as the fields above
        parse_prices,
        "What models and tools cost, as in `llama3*=0.15/0.60, *=0.1/0.1, tool:web_search=0.005`: "
        "of models a million tokens read and generated, of tools a call. The first pattern that "
        "matches counts. Empty for nothing.",
        default="",
    )
    currency: str = setting(
        currency_code, "Currency of the prices, for example `EUR`; needed with them.", default=""
    )
    query_log_retention_seconds: float = setting(
        duration_seconds("1h", "3650d"),
        "How long queries with their profiles are kept, and what users think of them.",
        default="30d",
    )
    usage_retention_seconds: float = setting(
        duration_seconds("31d", "3650d"), "How long sums of usage are kept.", default="400d"
    )
    query_log_text: bool = setting(
        boolean, "Whether questions and answers are kept with the queries.", default="false"
    )
    query_log_waiting_count: int = setting(
        integer(1, 1_000_000),
        "Most queries that wait to be written; what comes beyond is missing in the log, while its "
        "usage still counts.",
        default="10000",
    )
    query_log_recent_count: int = setting(
        integer(1, 1_000_000), "Latest queries that are kept in memory.", default="1000"
    )
    tenant_label_count: int = setting(
        integer(1, MOST_TENANTS),
        "Tenants that metrics tell apart: the first ones; all others count as `_other`.",
        default="50",
    )
    index_count_interval_seconds: float = setting(
        duration_seconds("1s", "1h"),
        "How often the documents and chunks in the database are counted, for metrics.",
        default="30s",
    )
    slow_query_seconds: float = setting(
        duration_seconds("1ms", "1h"),
        "From which duration on a query is written to the log of the process.",
        default="2s",
    )
    experiments: tuple[Experiment, ...] = setting(
        parse_experiments,
        "Experiments as JSON, see docs/usage.md. Empty for none.",
        default="",
    )

    web_searxng_url: str = setting(
        web_address,
        "SearXNG that finds pages of the web, `http://host:port`; it must offer JSON. Empty for "
        "none.",
        default="",
    )
    web_search_url: str = setting(
        web_address,
        "Another search engine that answers a GET with JSON: its address with `{query}`, and "
        "`{count}` where it takes a number. Empty for none.",
        default="",
        secret=True,
    )
    web_search_header: str = setting(
        http_header,
        "Header for that search engine as `Name: value`, for example with a key. Empty for none.",
        default="",
        secret=True,
    )
    web_search_results_pointer: str = setting(
        json_pointer,
        "Where in its answer the list of pages stands, a JSON pointer.",
        default="/results",
    )
    web_search_url_pointer: str = setting(
        json_pointer, "Where in a page's entry its address stands.", default="/url"
    )
    web_search_title_pointer: str = setting(
        json_pointer, "Where in a page's entry its title stands.", default="/title"
    )
    web_search_snippet_pointer: str = setting(
        json_pointer,
        "Where in a page's entry stands what the search engine says of it.",
        default="/snippet",
    )
    web_time_limit_seconds: float = setting(
        duration_seconds("100ms", "5m"),
        "Longest time to search the web and read pages; after that the documents answer alone. "
        "Never more than a quarter of what is left of the deadline.",
        default="10s",
    )
    web_page_count: int = setting(
        integer(1, 20), "Pages of the web that are read for one question.", default="5"
    )
    web_page_bytes: int = setting(
        byte_size("1KiB", "64MiB"), "Largest page of the web that is read.", default="2MiB"
    )
    web_ports: tuple[int, ...] = setting(
        comma_separated(integer(1, 65535), minimum_count=1),
        "Ports that pages of the web are fetched from.",
        default="80,443",
    )
    web_allowed_domains: tuple[str, ...] = setting(
        comma_separated(domain),
        "The only domains whose pages are fetched, with all below them. Empty for all.",
        default="",
    )
    web_denied_domains: tuple[str, ...] = setting(
        comma_separated(domain),
        "Domains whose pages are never fetched, with all below them.",
        default="",
    )
    web_private_hosts: tuple[str, ...] = setting(
        comma_separated(web_host),
        "Hosts, as `host` or `host:port`, whose pages are fetched although their addresses are not "
        "public. Whoever may ask questions may have them read.",
        default="",
    )
    web_retention_seconds: float = setting(
        duration_seconds("0s", "7d"),
        "How long pages of the web and what was found are kept in memory.",
        default="4h",
    )
    web_retention_bytes: int = setting(
        byte_size("0B", "16GiB"), "Most memory for them.", default="32MiB"
    )
    agent_step_count: int = setting(
        integer(1, 20),
        "Times that a model is asked in mode AGENT what tools it wants, before the answer.",
        default="5",
    )
    agent_call_count: int = setting(
        integer(1, 16), "Calls of tools that one step may have; more are not run.", default="4"
    )
    agent_tool_time_limit_seconds: float = setting(
        duration_seconds("10ms", "5m"), "Longest time of one call of a tool.", default="15s"
    )
    agent_token_count: int = setting(
        integer(1000, 10_000_000),
        "Tokens read and generated in mode AGENT after which no further step is begun.",
        default="50000",
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
        if self.web_searxng_url and self.web_search_url:
            raise ValueError("Only one of WEB_SEARXNG_URL and WEB_SEARCH_URL can be set")
        if self.web_search_url and "{query}" not in self.web_search_url:
            raise ValueError("WEB_SEARCH_URL must hold {query}")
        if self.prices != NO_PRICES and not self.currency:
            raise ValueError("CURRENCY must be set where PRICES are")
