"""Runs the rag service: `python -m services.rag`."""

import os
import sys

from services.common.server import run_main
from services.rag.app import start
from services.rag.metrics import CATALOGUE
from services.rag.settings import RagSettings

if __name__ == "__main__":
    sys.exit(
        run_main(
            "rag",
            RagSettings,
            CATALOGUE,
            start,
            arguments=sys.argv[1:],
            environment=os.environ,
        )
    )
