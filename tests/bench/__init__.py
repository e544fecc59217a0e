"""Benchmarks: measured on demand with `make bench`, never asserted in tests."""

import os

from pannier.polling import poll_without_event_engine

# As the documentation tells those who call from Python; before gRPC is imported.
poll_without_event_engine()

# As the services do: else a process that uvloop starts beside calls under way may end at once.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
