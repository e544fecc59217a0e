"""Runs the cases of a benchmark one after the other, and shows what they report."""

import tempfile
from collections.abc import Awaitable, Callable, Collection, Iterable
from pathlib import Path

from tests.bench.cache.rows import Row, of_tuned_host, table
from tests.bench.tuned import both_ways, tuned_host

__all__ = ["run_cases"]


async def run_cases(
    names: Iterable[str],
    run: Callable[[str, Path], Awaitable[list[Row]]],
    *,
    short: Collection[str],
) -> None:
    """Runs cases.

    Args:
        names: Which.
        run: Runs one in a folder of its own.
        short: Cases of calls so short that it matters how the host wakes up; they are measured on
            a tuned host as well.
    """
    rows: list[Row] = []
    for name in names:
        for is_tuned in both_ways() if name in short else (False,):
            with (
                tempfile.TemporaryDirectory(prefix="pannier-bench-") as folder,
                tuned_host(is_tuned),
            ):
                found = await run(name, Path(folder))
            found = of_tuned_host(found) if is_tuned else found
            print(table(found), flush=True)
            rows += found
    print(f"\n{table(rows)}")
