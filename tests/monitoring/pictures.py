"""Draws the dashboards as they look over some minutes of traffic: `make pictures`."""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.monitoring.observation import watched_suite
from tests.monitoring.traffic import send_traffic

ROOT = Path(__file__).resolve().parents[2]


async def _draw(minutes: float) -> int:
    """Returns the exit status of the command that draws."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PANNIER_")
    }
    with tempfile.TemporaryDirectory(prefix="pannier-pictures-") as folder:
        async with watched_suite(Path(folder), environment) as (suite, prometheus):
            ends_at = time.monotonic() + 60 * minutes
            while (left := ends_at - time.monotonic()) > 0:
                print(f"traffic for {left / 60:.1f} more minutes", flush=True)
                await send_traffic(suite)
            command = [
                *(sys.executable, "-m", "tools.monitoring.pictures"),
                *("--prometheus", prometheus.url, "--minutes", str(minutes)),
                *("--out", str(ROOT / "dashboards/images")),
            ]
            process = await asyncio.create_subprocess_exec(*command, cwd=ROOT)
            return await process.wait()


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.monitoring.pictures", description=__doc__
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="minutes of traffic, 5")
    return asyncio.run(_draw(parser.parse_args().minutes))


if __name__ == "__main__":
    raise SystemExit(main())
