"""Free ports on loopback."""

import secrets
import socket

__all__ = ["LOOPBACK", "Ports", "is_free"]

LOOPBACK = "127.0.0.1"

# Below those that the system gives to clients: a connection of somebody could take one of theirs
# before its owner listens. Ten thousand above each is free of them, too, for the bus of a cluster.
_PORTS = range(12_000, 22_000)


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
        port = preferred if preferred not in self._given and is_free(preferred) else 0
        while port == 0 or port in self._given:
            port = _any()
        self._given.add(port)
        return port


def is_free(port: int) -> bool:
    """Tells whether a server could listen on a port of loopback; 0 is none."""
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
    # Not by a generator that a test may seed: processes side by side would get the same ones.
    while not is_free(port := secrets.choice(_PORTS)):
        pass
    return port
