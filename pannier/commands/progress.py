"""Bars that show how far something has come."""

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pannier.commands.output import Output

__all__ = ["count_bars"]


def count_bars(output: Output) -> Progress:
    """Makes bars of things that are counted; on what is no terminal they show nothing."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=output.errors,
        disable=not output.errors.is_terminal,
    )
