"""`python -m services.standin`: one stand-in server as a process."""

import importlib
import os

# Eight servers share two cores; more threads in each would only wait for each other. The libraries
# read these when they are imported, so the rest is imported after.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

if __name__ == "__main__":
    importlib.import_module("services.standin.command").main(os.environ)
