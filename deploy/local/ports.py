"""Free ports on loopback."""

import socket

__all__ = ["LOOPBACK", "Ports"]

LOOPBACK = "127.0.0.1"


class Ports:
    """Hands out ports that nothing listens on, each once.

    Another program may still take a port before its owner binds it; its owner then says so.
    """

    def __init__(self) -> None:
        self._given: set[int] = set()

    def take(self, preferred: int = 0) -> int:
        """Returns the preferred port where it is free, else any free one.

        Args:
            preferred: Port to try first; 0 for none.
        """
        port = preferred if preferred not in self._given and _is_free(preferred) else 0
        while port == 0 or port in self._given:
            port = _any()
        self._given.add(port)
        return port


def _is_free(port: int) -> bool:
    if port == 0:
        return False
    with socket.socket() as probe:
        # As servers do: a port whose last connections linger is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _any() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
    return port
