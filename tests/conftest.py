"""What holds for every test, set before anything heavy is imported."""

import os

from hypothesis import HealthCheck, settings

from pannier.polling import poll_without_event_engine

# Two spinning threads per matrix product on a busy machine make embeddings several times slower.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# gRPC writes notes about closed connections between the lines of a report.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
poll_without_event_engine()
# A test that wants a width says so; the workers of a parallel run inherit that of the terminal.
os.environ.pop("COLUMNS", None)

# The same commit has the same examples each time, and no stopwatch fails one on a busy machine.
_UNTIMED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("repeatable", derandomize=True, **_UNTIMED)
settings.register_profile("search", max_examples=1000, print_blob=True, **_UNTIMED)
settings.load_profile("repeatable")
