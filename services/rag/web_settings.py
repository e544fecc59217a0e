"""How the settings of the web search are written."""

import re

__all__ = ["domain", "http_header", "json_pointer", "web_address", "web_host"]

_ADDRESS = re.compile(r"https?://[^\s/@]+(?:/\S*)?")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+:[ \t]*[ -~]+")
_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)*")
_DOMAIN = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?")
_HOST = re.compile(r"(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::(?P<port>\d{1,5}))?")


def web_address(value: str) -> str:
    """Parses an address of http or https; empty for none."""
    address = value.strip()
    if address and _ADDRESS.fullmatch(address) is None:
        raise ValueError("must be http://host/ or https://host/, without user and password")
    return address


def http_header(value: str) -> str:
    """Parses a header; empty for none."""
    header = value.strip()
    if header and _HEADER.fullmatch(header) is None:
        raise ValueError("must be a header, for example Authorization: Bearer key")
    return header


def json_pointer(value: str) -> str:
    """Parses a JSON pointer (RFC 6901)."""
    pointer = value.strip()
    if _POINTER.fullmatch(pointer) is None:
        raise ValueError("must be a JSON pointer, for example /web/results")
    return pointer


def domain(value: str) -> str:
    """Parses a domain."""
    name = value.strip().lower().rstrip(".").removeprefix("*.")
    if _DOMAIN.fullmatch(name) is None:
        raise ValueError("must be a domain, for example example.org")
    return name


def web_host(value: str) -> str:
    """Parses a host, with or without a port; an IPv6 address stands in brackets."""
    name = value.strip().lower()
    found = _HOST.fullmatch(name)
    if found is None or (found["port"] and not 0 < int(found["port"]) <= 65535):
        raise ValueError("must be host or host:port")
    return name.replace("[", "").replace("]", "")
