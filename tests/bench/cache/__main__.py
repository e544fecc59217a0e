"""Measures the cache on real Redis: `python -m tests.bench.cache`.

Times are taken by the caller, through gRPC, over loopback. The machine may be shared, so compare
rows of one run.
"""

import argparse
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

import uvloop

from tests.bench.cache import flights, frozen, inserts, lookups, meanings, peers
from tests.bench.cache.rows import Row
from tests.bench.cases import run_cases
from tests.bench.tuned import add_option, tuned_host

_ROOT = Path(__file__).parents[3]
_COUNT, _QUICK_COUNT = 5_000, 500
_SHORT = ("local", "shared", "semantic", "peers")

Case = Callable[[Path, int], Awaitable[list[Row]]]


def _cases(options: argparse.Namespace) -> Mapping[str, Case]:
    return {
        "local": lookups.local_hits,
        "shared": lookups.shared_hits,
        "batch": lookups.batches,
        "semantic": meanings.decisions,
        "flights": flights.cold_callers,
        "frozen": frozen.frozen_redis,
        "inserts": inserts.a_million,
        "peers": partial(peers.against_gptcache, venv=options.gptcache, data=options.data),
    }


async def _run(options: argparse.Namespace) -> None:
    cases = _cases(options)
    count = _QUICK_COUNT if options.quick else _COUNT
    await run_cases(
        options.case or cases, lambda name, folder: cases[name](folder, count), short=_SHORT
    )


def main() -> None:
    """Runs the cases asked for, one after the other."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.cache",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    option = parser.add_argument
    option("--case", action="append", help="only this one; repeatable")
    option("--quick", action="store_true", help="a tenth of the calls, for development")
    option("--gptcache", type=Path, default=_ROOT / ".venv-gptcache", help="venv with gptcache")
    option("--data", type=Path, default=_ROOT.parent / "shared" / "data", help="data sets")
    add_option(parser)
    options = parser.parse_args()
    unknown = set(options.case or ()) - set(_cases(options))
    if unknown:
        parser.error(
            f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(_cases(options))}"
        )
    with tuned_host(options.tuned):
        uvloop.run(_run(options))


if __name__ == "__main__":
    main()
