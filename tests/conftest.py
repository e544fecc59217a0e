"""What holds for every test, set before anything heavy is imported."""

import os

# Two spinning threads per matrix product on a busy machine make embeddings several times slower.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# gRPC writes notes about closed connections between the lines of a report.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
# A test that wants a width says so; the workers of a parallel run inherit that of the terminal.
os.environ.pop("COLUMNS", None)
