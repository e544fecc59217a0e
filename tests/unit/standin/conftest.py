"""Matrix products on one thread, as in the server: more would spin against the other tests."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
