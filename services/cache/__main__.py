"""Runs the cache service: `python -m services.cache`."""

import os
import sys

from services.cache.app import start
from services.cache.metrics import CATALOGUE
from services.cache.settings import CacheSettings
from services.common.server import run_main

if __name__ == "__main__":
    sys.exit(
        run_main(
            "cache", CacheSettings, CATALOGUE, start, arguments=sys.argv[1:], environment=os.environ
        )
    )
