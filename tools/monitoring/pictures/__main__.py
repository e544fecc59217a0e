"""Draws all dashboards from what a Prometheus answers.

Run as `python -m tools.monitoring.pictures --prometheus URL --out dashboards/images`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx

from services.common.clock import SystemClock
from tools.monitoring.dashboards import FOLDER
from tools.monitoring.pictures import ask, draw

__all__ = ["main"]

ROOT = Path(__file__).resolve().parents[3]


def main(arguments: Sequence[str]) -> int:
    """Runs the command line.

    Args:
        arguments: What stands behind the command.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prometheus", required=True, help="address of Prometheus")
    parser.add_argument("--out", type=Path, required=True, help="folder that they go into")
    parser.add_argument("--minutes", type=float, default=15, help="how far back; default 15")
    parser.add_argument("--end", type=float, help="up to when, seconds since the epoch; now")
    parser.add_argument("--only", action="append", help="uid of a dashboard; all if left out")
    chosen = parser.parse_args(arguments)
    end = SystemClock().now() if chosen.end is None else chosen.end
    chosen.out.mkdir(parents=True, exist_ok=True)
    with httpx.Client(base_url=chosen.prometheus, timeout=30) as client:
        for path in sorted((ROOT / FOLDER).glob("*.json")):
            if chosen.only and path.stem not in chosen.only:
                continue
            dashboard = json.loads(path.read_text(encoding="utf-8"))
            picture = draw(dashboard, ask(client, dashboard, end=end, minutes=chosen.minutes))
            target = chosen.out / f"{path.stem}.png"
            target.write_bytes(picture)
            print(f"{target}: {len(picture) / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
