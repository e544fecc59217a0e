"""Where the shared store is, and of which shape, as one URL says it.

    redis://[user:password@]host[:port]                          one server; rediss:// over TLS
    unix:///path                                                 one server of this machine
    redis+sentinel://[user:password@]host[:port],.../<service>   a master that Sentinels know
    redis+cluster://[user:password@]host[:port],...              a cluster, by some of its nodes

Sentinel and Cluster take `rediss+` as well.
"""

from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import SplitResult, unquote, urlsplit

__all__ = ["Endpoint", "StoreAddress", "Topology", "parse_store_url"]

Endpoint = tuple[str, int]
"""Host and port."""

_DEFAULT_PORT = 6379
_DEFAULT_SENTINEL_PORT = 26379


class Topology(Enum):
    """Shape of a store."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAddress:
    """Where a store is.

    Attributes:
        topology: Its shape.
        endpoints: The server, some of the Sentinels, or some of the cluster's nodes; none where
            `path` is set.
        path: Socket of a server of this machine.
        service: What the Sentinels call the master.
        username: Who to log in as; None for the server's default user.
        password: None where the server wants none.
        tls: Whether connections are encrypted.
    """

    topology: Topology
    endpoints: tuple[Endpoint, ...] = ()
    path: str = ""
    service: str = ""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False

    @property
    def local(self) -> bool:
        """Whether only this machine reaches it."""
        return all(
            host in ("localhost", "::1") or host.startswith("127.") for host, _ in self.endpoints
        )


def parse_store_url(url: str) -> StoreAddress:
    """Reads a URL.

    Raises:
        ValueError: It does not name a store; the message does not show it.
    """
    # Several hosts are none to the standard library, which refuses some of them.
    scheme, _, rest = url.partition("://")
    if "?" in rest or "#" in rest:
        raise ValueError("must not name options; they have settings of their own")
    authority, slash, path = rest.partition("/")
    if scheme.lower() == "unix":
        if authority or not path:
            raise ValueError("must be unix:///path")
        return StoreAddress(topology=Topology.SINGLE, path=unquote(slash + path))
    security, _, shape = scheme.lower().partition("+")
    if security not in ("redis", "rediss") or shape not in ("", "sentinel", "cluster"):
        raise ValueError(
            "must be a URL such as redis://127.0.0.1:6379, rediss://, unix://, redis+sentinel:// "
            "or redis+cluster://"
        )
    topology = Topology(shape or "single")
    credentials, _, hosts = authority.rpartition("@")
    username, _, password = credentials.partition(":")
    return StoreAddress(
        topology=topology,
        endpoints=_endpoints(hosts, topology),
        service=_service(path, topology),
        username=unquote(username) or None,
        password=unquote(password) or None,
        tls=security == "rediss",
    )


def _endpoints(hosts: str, topology: Topology) -> tuple[Endpoint, ...]:
    port = _DEFAULT_SENTINEL_PORT if topology is Topology.SENTINEL else _DEFAULT_PORT
    endpoints = tuple(_endpoint(host, port) for host in hosts.split(","))
    if topology is Topology.SINGLE and len(endpoints) > 1:
        raise ValueError("must name one server; several are redis+sentinel:// or redis+cluster://")
    return endpoints


def _endpoint(host: str, default_port: int) -> Endpoint:
    parts = _split_host(host)
    try:
        port = parts.port
    except ValueError:
        raise ValueError("must have ports of 1 to 65535") from None
    if not parts.hostname or port == 0:
        raise ValueError("must name a host, and a port of 1 to 65535 where it names one")
    return parts.hostname, default_port if port is None else port


def _split_host(host: str) -> SplitResult:
    try:
        return urlsplit(f"//{host}")
    except ValueError:
        raise ValueError("must name hosts, IPv6 addresses in brackets") from None


def _service(path: str, topology: Topology) -> str:
    service = unquote(path.strip("/"))
    if topology is Topology.SENTINEL:
        if not service or "/" in service:
            raise ValueError("must name the service: redis+sentinel://host:port/service")
    elif service:
        raise ValueError("must not name a database; databases have settings of their own")
    return service
