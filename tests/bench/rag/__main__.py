"""Measures rag: `python -m tests.bench.rag`.

Times are taken by the caller, through gRPC, over loopback, with real processes. The machine may be
shared, so compare rows of one run.
"""

import argparse
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

import uvloop

from tests.bench.cache.rows import Row
from tests.bench.cases import run_cases
from tests.bench.rag import answers, chunking, intake, quality, scale
from tests.bench.tuned import add_option, tuned_host

_ROOT = Path(__file__).parents[3]

_SHORT = ("overhead", "cached")

Case = Callable[[Path, bool], Awaitable[list[Row]]]


def _cases(options: argparse.Namespace) -> Mapping[str, Case]:
    return {
        "quality": partial(
            quality.cranfield, data=options.data, vectors=options.vectors, lancedb=options.lancedb
        ),
        "chunking": partial(chunking.strategies, data=options.data, vectors=options.vectors),
        "scale": partial(scale.many_chunks, lancedb=options.lancedb),
        "backends": intake.backends,
        "unchanged": intake.unchanged,
        "overhead": answers.overhead,
        "cached": partial(answers.cached, data=options.data),
        "users": partial(answers.users, data=options.data, minutes=options.minutes),
    }


async def _run(options: argparse.Namespace) -> None:
    cases = _cases(options)
    await run_cases(
        options.case or cases, lambda name, folder: cases[name](folder, options.quick), short=_SHORT
    )


def main() -> None:
    """Runs the cases asked for, one after the other."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.rag",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    option = parser.add_argument
    option("--case", action="append", help="only this one; repeatable")
    option("--quick", action="store_true", help="a tenth of everything, for development")
    option("--minutes", type=float, default=10.0, help="how long the users ask questions")
    option("--lancedb", type=Path, default=_ROOT / ".venv-lancedb", help="venv with lancedb")
    option("--data", type=Path, default=_ROOT.parent / "shared" / "data", help="data sets")
    option(
        "--vectors",
        type=Path,
        default=Path(tempfile.gettempdir()) / "pannier-bench-vectors",
        help="where the vectors of MiniLM are kept from one run to the next",
    )
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
