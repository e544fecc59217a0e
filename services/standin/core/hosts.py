"""Which `Host` and `Origin` headers a server on a loopback address takes."""

import ipaddress
from urllib.parse import urlsplit

_LOCAL_SUFFIXES = (".localhost", ".local", ".internal")
_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "0.0.0.0"})  # noqa: S104 - nothing is bound here
_WEB_SCHEMES = frozenset({"http", "https"})
_APP_SCHEMES = frozenset({"app", "file", "tauri", "vscode-webview", "vscode-file"})


def is_loopback(address: str) -> bool:
    """Whether an address to listen on is reached from this machine only."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def allows_host(header: str, own_name: str) -> bool:
    """Whether a request may name this host.

    Args:
        header: The `Host` header, with or without a port; "" if there is none.
        own_name: The machine's host name.
    """
    host = (urlsplit(f"//{header}").hostname or "").lower()
    if not host or host in {"localhost", own_name.lower()}:
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.endswith(_LOCAL_SUFFIXES)
    return address.is_loopback or address.is_private or address.is_unspecified


def allows_origin(header: str) -> bool:
    """Whether a browser's page of that origin may ask; "" where no browser asks."""
    if not header:
        return True
    parts = urlsplit(header)
    if parts.scheme in _APP_SCHEMES:
        return True
    return parts.scheme in _WEB_SCHEMES and (parts.hostname or "") in _LOCAL_HOSTS
