"""Which pages of the web may be fetched: those of public hosts, and no others.

A page's address comes from a search provider or from another page, so it may be chosen by someone
who wants this service to ask hosts of its own network. Therefore the address is judged twice: as it
is written, and as what its name stands for at the moment of the connection.
"""

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass, field

__all__ = ["WebRules", "is_public", "matches_domain"]

_SCHEME_PORTS = {"http": 80, "https": 443}
# Networks in which the address of a host of another network may be hidden, as the last 32 bits.
_TRANSLATED = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48")))
_COMPATIBLE = ipaddress.IPv6Network("::/96")
# What is not reserved by the book and leads nowhere that a page is.
_NEVER = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",
            "100.64.0.0/10",
            "192.0.0.0/24",
            "192.88.99.0/24",
            "198.18.0.0/15",
            "168.63.129.16/32",
            "100.100.100.200/32",
            "fec0::/10",
            "fd00:ec2::254/128",
            "2001::/23",
            "2002::/16",
            "100::/64",
            "5f00::/16",
        ),
    )
)


def is_public(address: str) -> bool:
    """Says whether an address is that of a host of the public internet.

    Private, loopback, link-local, shared, multicast, documentation and reserved addresses are not,
    nor are those that stand for an IPv4 address in IPv6 (mapped, compatible, 6to4, Teredo, NAT64),
    whatever that is: no public page needs them.

    Args:
        address: An IPv4 or IPv6 address; may have a zone.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if any(parsed.version == network.version and parsed in network for network in _NEVER):
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and (
        parsed.ipv4_mapped is not None
        or parsed in _COMPATIBLE
        or any(parsed in network for network in _TRANSLATED)
    ):
        return False
    return parsed.is_global and not (
        parsed.is_multicast or parsed.is_reserved or parsed.is_link_local or parsed.is_unspecified
    )


def matches_domain(host: str, domains: Collection[str]) -> bool:
    """Says whether a host is one of the domains or below one of them."""
    name = host.rstrip(".").lower()
    return any(name == domain or name.endswith(f".{domain}") for domain in domains)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebRules:
    """What may be fetched.

    Attributes:
        ports: Ports that may be asked.
        allowed_domains: The only domains whose pages are fetched; empty for all.
        denied_domains: Domains whose pages are never fetched.
        private_hosts: Hosts that may have any address, as `host` or, for a port of its own,
            `host:port`.
    """

    ports: frozenset[int] = frozenset(_SCHEME_PORTS.values())
    allowed_domains: tuple[str, ...] = ()
    denied_domains: tuple[str, ...] = ()
    private_hosts: frozenset[str] = field(default_factory=frozenset)

    def problem(
        self, *, scheme: str, host: str, port: int | None, has_credentials: bool
    ) -> str | None:
        """Returns why an address must not be asked, as far as it shows in the address; or None.

        Args:
            scheme: As in the address, lower case.
            host: A name or an address without brackets; empty where there is none.
            port: The port; None where the address names none and the scheme has none.
            has_credentials: Whether it names a user or a password.
        """
        if scheme not in _SCHEME_PORTS:
            return "only http and https are fetched"
        if not host:
            return "it names no host"
        if has_credentials:
            return "it holds credentials"
        if matches_domain(host, self.denied_domains):
            return "its domain is denied"
        if self.allowed_domains and not matches_domain(host, self.allowed_domains):
            return "its domain is not among those allowed"
        if self.is_private_host(host, port):
            return None
        if port not in self.ports:
            return f"port {port} is not asked"
        if _is_address(host) and not is_public(host):
            return "its address is not public"
        return None

    def is_private_host(self, host: str, port: int | None) -> bool:
        """Says whether a host may have any address, by configuration."""
        name = host.lower()
        if f"{name}:{port}" in self.private_hosts:
            return True
        return name in self.private_hosts and port in self.ports


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
