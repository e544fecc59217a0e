"""Measures what telemetry costs: `python -m tests.bench.observability`.

The same services run with and without it, in turns, in one run. The machine may be shared, so
compare the rows of one run.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

from tests.bench.cache.rows import Row, table
from tests.bench.observability import queries
from tests.bench.observability.scrapes import scrapes

_CASES = {
    "cached": queries.cached,
    "streamed": queries.streamed,
    "lost": queries.lost,
    "scrapes": scrapes,
}


async def _run(names: list[str], *, quick: bool) -> None:
    rows: list[Row] = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="pannier-bench-observability-") as folder:
            found = await _CASES[name](Path(folder), quick)
        print(table(found), flush=True)
        rows += found
    print(f"\n{table(rows)}")


def main() -> None:
    """Runs the cases asked for, one after the other."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.observability", description=__doc__
    )
    parser.add_argument(
        "--case", action="append", choices=sorted(_CASES), help="only this one; repeatable"
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    options = parser.parse_args()
    asyncio.run(_run(options.case or list(_CASES), quick=options.quick))


if __name__ == "__main__":
    main()
