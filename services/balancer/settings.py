"""What the balancer can be told."""

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from services.common.server import CommonSettings
from services.common.settings import (
    byte_size,
    comma_separated,
    duration_seconds,
    host_and_port,
    integer,
    setting,
    text,
)

__all__ = ["MAXIMUM_BACKENDS", "BalancerSettings", "Endpoint", "parse_endpoint"]

# Each backend has series of its own in the metrics.
MAXIMUM_BACKENDS = 64


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an Ollama server listens.

    Attributes:
        url: Scheme, host and port, without a slash at the end.
        host: Host name or address, an IPv6 address without brackets.
        port: TCP port.
        slot_count: Requests that one of its chat models is given at a time (`OLLAMA_NUM_PARALLEL`);
            None for the common setting.
        model_limit: Models that it holds at a time (`OLLAMA_MAX_LOADED_MODELS`); None for the
            common setting.
    """

    url: str
    host: str
    port: int
    slot_count: int | None = None
    model_limit: int | None = None

    @property
    def backend_id(self) -> str:
        """Host and port, by which the backend is known everywhere."""
        return self.url.partition("://")[2]


def parse_endpoint(value: str) -> Endpoint:
    """Parses `http://host:port`, with `?slots=2&models=3` where a server differs from the others.

    Raises:
        ValueError: The text is something else.
    """
    # Whatever stands before it may be a password, and what is said here is logged.
    shown = "..." + value[value.rindex("@") :] if "@" in value else value
    problem = (
        f"{shown!r} must be http://host:port, without path or user; "
        "?slots=N and ?models=N may follow"
    )
    parts = urlsplit(value.rstrip("/"))
    try:
        port = parts.port
        pairs = parse_qsl(parts.query, strict_parsing=True) if parts.query else []
        limits = {name: int(limit) for name, limit in pairs}
    except ValueError:
        raise ValueError(problem) from None
    extras = parts.path.strip("/") or parts.fragment or parts.username or parts.password
    if parts.scheme not in ("http", "https") or not parts.hostname or not port or extras:
        raise ValueError(problem)
    if limits.keys() - {"slots", "models"} or not all(1 <= each <= 64 for each in limits.values()):
        raise ValueError(problem)
    return Endpoint(
        url=f"{parts.scheme}://{parts.netloc.lower()}",
        host=parts.hostname,
        port=port,
        slot_count=limits.get("slots"),
        model_limit=limits.get("models"),
    )


def _address_or_none(value: str) -> str:
    return host_and_port(value) if value.strip() else ""


def _context_class(value: str) -> int:
    return integer(256, 2**21)(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancerSettings(CommonSettings):
    """The settings of the balancer; the variables begin with `PANNIER_BALANCER_`."""

    backends: tuple[Endpoint, ...] = setting(
        comma_separated(parse_endpoint, minimum_count=1),
        "Ollama servers, comma-separated, for example http://127.0.0.1:11434; at most 64. "
        "A server that differs from the others says so: http://10.0.0.7:11434?slots=4&models=2.",
        # What was given may hold a password, which is refused; the message says what is wrong.
        secret=True,
    )
    backends_file: str = setting(
        text,
        "File with further Ollama servers, one per line as in BACKENDS, # for comments; read again "
        "when it changes. Empty for none.",
        default="",
    )
    backends_dns_name: str = setting(
        _address_or_none,
        "Host name and port, for example ollama.internal:11434, each of whose addresses is a "
        "further Ollama server; looked up every 10 s. Empty for none.",
        default="",
    )
    slots_per_model: int = setting(
        integer(1, 64),
        "Requests that a backend's model is given at a time; what OLLAMA_NUM_PARALLEL is on the "
        "servers. Embedding models always have one.",
        default="1",
    )
    models_per_backend: int = setting(
        integer(1, 64),
        "Models that a backend is thought to hold at a time, until it shows otherwise; what "
        "OLLAMA_MAX_LOADED_MODELS is on the servers.",
        default="3",
    )
    pinned_models: tuple[str, ...] = setting(
        comma_separated(text),
        "Models to be kept in memory wherever they fit, comma-separated; embedding models that "
        "are in use are, whether named or not.",
        default="",
    )
    context_classes: tuple[int, ...] = setting(
        comma_separated(_context_class, minimum_count=1),
        "Context windows in tokens that models are loaded with, one or two, ascending. A model "
        "that is loaded with a window large enough for a request is never loaded anew for it.",
        default="4096,16384",
    )
    keep_alive_seconds: float = setting(
        duration_seconds("10s", "24h"),
        "How long a backend keeps a model that nobody asks for. Callers cannot change it.",
        default="30m",
    )
    load_limit_seconds: float = setting(
        duration_seconds("1s", "1h"),
        "Longest time that loading a model may take; a little above OLLAMA_LOAD_TIMEOUT.",
        default="330s",
    )
    queue_limit_interactive: int = setting(
        integer(1, 10_000),
        "Most interactive requests that may wait for a slot; more are refused.",
        default="256",
    )
    queue_limit_batch: int = setting(
        integer(1, 10_000),
        "Most batch requests that may wait for a slot; they are dropped first when others come.",
        default="512",
    )
    shared_redis_url: str = setting(
        text,
        "Redis through which several replicas of the balancer share the slots of one fleet, for "
        "example redis://127.0.0.1:6379/0. Empty where there is one replica.",
        default="",
        secret=True,
    )
    maximum_request_bytes: int = setting(
        byte_size("64KiB", "64MiB"),
        "Largest request message accepted; pictures travel in them.",
        default="32MiB",
    )
    maximum_attempts: int = setting(
        integer(1, 16),
        "Most backends a request is tried on, the first included.",
        default="3",
    )
    connect_limit_seconds: float = setting(
        duration_seconds("50ms", "60s"),
        "Longest time to connect to a backend.",
        default="2s",
    )
    first_token_limit_seconds: float = setting(
        duration_seconds("100ms", "1h"),
        "Longest silence of a backend before its first token, or before the vectors of a batch. "
        "Includes loading the model, and a load dies with the request that started it.",
        default="300s",
    )
    first_token_floor_seconds: float = setting(
        duration_seconds("50ms", "10m"),
        "Silence before the first token of a loaded model that is never too long; three times what "
        "was predicted is allowed beyond it.",
        default="8s",
    )
    unproven_first_token_seconds: float = setting(
        duration_seconds("50ms", "1h"),
        "The same for a model that has not shown yet what it takes on that backend.",
        default="60s",
    )
    stall_limit_seconds: float = setting(
        duration_seconds("100ms", "1h"),
        "Longest silence of a backend between two tokens.",
        default="60s",
    )
    stall_floor_seconds: float = setting(
        duration_seconds("50ms", "10m"),
        "Silence between two tokens that is never too long, however fast the model is.",
        default="10s",
    )
    canary_limit_seconds: float = setting(
        duration_seconds("100ms", "10m"),
        "Longest time that a loaded model may take for one token when it is in doubt.",
        default="10s",
    )
    health_interval_seconds: float = setting(
        duration_seconds("50ms", "10m"),
        "Time between two checks of a backend without failures; one with failures is checked "
        "after 1 s, and after twice as long each time, up to this.",
        default="30s",
    )
    ejection_seconds: float = setting(
        duration_seconds("100ms", "10m"),
        "How long a backend whose requests fail gets none, the first time; twice as long each "
        "further time. One that cannot be connected to is back as soon as it answers.",
        default="10s",
    )
    slow_start_seconds: float = setting(
        duration_seconds("100ms", "10m"),
        "How long a backend that has come back is given fewer requests than the others.",
        default="30s",
    )
    listing_interval_seconds: float = setting(
        duration_seconds("50ms", "1m"),
        "Time between two looks at which models a backend has in memory.",
        default="1500ms",
    )
    health_limit_seconds: float = setting(
        duration_seconds("50ms", "30s"),
        "Longest time a check may take.",
        default="2s",
    )

    def __post_init__(self) -> None:
        """Refuses backends that could not be told apart."""
        # A dataclass with slots is made twice, so super() without arguments finds the wrong class.
        CommonSettings.__post_init__(self)
        ids = [endpoint.backend_id for endpoint in self.backends]
        if len(ids) > MAXIMUM_BACKENDS:
            raise ValueError(f"{len(ids)} backends are named, the limit is {MAXIMUM_BACKENDS}")
        repeated = sorted({backend_id for backend_id in ids if ids.count(backend_id) > 1})
        classes = self.context_classes
        if len(classes) > 2 or list(classes) != sorted(set(classes)):
            raise ValueError("context_classes must be one or two sizes, the smaller one first")
        if repeated:
            raise ValueError(f"backends are named more than once: {', '.join(repeated)}")
