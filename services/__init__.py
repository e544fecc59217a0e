"""The servers of pannier.

`balancer`, `cache` and `rag` are independent of each other and of the stand-in fleet `standin`.
They share the generated stubs in `pannier` and the small library `services.common`. In each, `core`
is pure, adapters are reached by the composition root `app` alone, and `__main__` only reads
settings and starts `app`.
"""

import os

from pannier.polling import poll_without_event_engine

# Read by gRPC when it is imported. What it does in a forked process, between fork and exec, ends
# one in nine of those that uvloop starts beside calls under way, and may touch their connections.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # noqa: TID251 -- not a setting of ours

poll_without_event_engine()

# Read by numpy's OpenBLAS when it is imported. With a thread per core, a product waits for the core
# that something else has: a search among 2,700 vectors took 4.3 ms beside one busy process, .1 so.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # noqa: TID251 -- OpenBLAS's own
