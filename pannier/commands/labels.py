"""What is kept with documents, as it is said on the command line."""

from collections.abc import Sequence

import typer

__all__ = ["DATES", "read_facts"]

DATES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]
"""How times are written, in UTC."""


def read_facts(facts: Sequence[str] | None) -> dict[str, str]:
    """Reads facts written `key=value`.

    Raises:
        typer.BadParameter: One has no value.
    """
    read: dict[str, str] = {}
    for each in facts or ():
        key, separator, value = each.partition("=")
        if not separator or not key:
            raise typer.BadParameter(f"{each!r} is not written key=value")
        read[key] = value
    return read
