"""Runs in GPTCache's own environment: its server, for the questions of a stream at one threshold.

Takes the file, the threshold and the port as arguments. Beside what the stream needs, it takes
FastAPI, uvicorn and an openai below 1, which GPTCache's server imports.
"""

import sys
import tempfile
from pathlib import Path

import uvicorn  # type: ignore[import-not-found]
from gptcache import cache  # type: ignore[import-not-found]
from gptcache_server.server import app  # type: ignore[import-not-found]
from gptcache_stream import prepare, read


def main() -> None:
    """Serves until it is told to end."""
    path, cosine, port = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        prepare(cache, read(path), float(cosine), Path(folder))
        uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main()
