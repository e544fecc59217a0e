"""What the balancer can be told."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from services.common.server import CommonSettings
from services.common.settings import comma_separated, duration_seconds, integer, setting

__all__ = ["BalancerSettings", "Endpoint", "parse_endpoint"]

# Each backend has series of its own in the metrics.
_MAXIMUM_BACKENDS = 64


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an Ollama server listens.

    Attributes:
        url: Scheme, host and port, without a slash at the end.
        host: Host name or address, an IPv6 address without brackets.
        port: TCP port.
    """

    url: str
    host: str
    port: int

    @property
    def backend_id(self) -> str:
        """Host and port, by which the backend is known everywhere."""
        return self.url.partition("://")[2]


def parse_endpoint(value: str) -> Endpoint:
    """Parses `http://host:port`.

    Raises:
        ValueError: The text is something else.
    """
    problem = f"{value!r} must be http://host:port, without path, query or user"
    parts = urlsplit(value.rstrip("/"))
    try:
        port = parts.port
    except ValueError:
        raise ValueError(problem) from None
    extras = parts.path or parts.query or parts.fragment or parts.username or parts.password
    if parts.scheme not in ("http", "https") or not parts.hostname or not port or extras:
        raise ValueError(problem)
    return Endpoint(f"{parts.scheme}://{parts.netloc.lower()}", parts.hostname, port)


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancerSettings(CommonSettings):
    """The settings of the balancer; the variables begin with `PANNIER_BALANCER_`."""

    backends: tuple[Endpoint, ...] = setting(
        comma_separated(parse_endpoint, minimum_count=1),
        "Ollama servers, comma-separated, for example http://127.0.0.1:11434; at most 64.",
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
    stall_limit_seconds: float = setting(
        duration_seconds("100ms", "1h"),
        "Longest silence of a backend between two tokens.",
        default="60s",
    )
    health_interval_seconds: float = setting(
        duration_seconds("50ms", "10m"),
        "Time between two checks of a backend without failures; one with failures is checked "
        "after 1 s, and after twice as long each time, up to this.",
        default="30s",
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
        if len(ids) > _MAXIMUM_BACKENDS:
            raise ValueError(f"{len(ids)} backends are named, the limit is {_MAXIMUM_BACKENDS}")
        repeated = sorted({backend_id for backend_id in ids if ids.count(backend_id) > 1})
        if repeated:
            raise ValueError(f"backends are named more than once: {', '.join(repeated)}")
