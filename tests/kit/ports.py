"""Ports for servers that are told where to listen."""

from deploy.local.ports import Ports

__all__ = ["free_port"]

_ports = Ports()


def free_port() -> int:
    """Returns a TCP port of loopback that nobody listens on, each once."""
    return _ports.take()
