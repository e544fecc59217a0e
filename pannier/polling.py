"""Which of its two ways of waiting for the network gRPC takes in this process."""

import os

__all__ = ["poll_without_event_engine"]

# grpcio 1.83.2, Python 3.11, two cores, server and client alike: a call that does nothing takes
# 1.0 ms at 100 a second and .55 one after the other with the engine, .65 and .4 without.
_EXPERIMENTS = "-event_engine_client,-event_engine_listener,-event_engine_dns"


def poll_without_event_engine() -> None:
    """Has gRPC read its connections in the thread that hands events to Python, as before 1.80.

    With its event engine, the default in Python since then, another thread reads them first and
    has to wake this one for each message. To be called before gRPC is imported, by the program
    and not by a library; does nothing where `GRPC_EXPERIMENTS` is set.
    """
    os.environ.setdefault("GRPC_EXPERIMENTS", _EXPERIMENTS)  # noqa: TID251 -- gRPC's own
