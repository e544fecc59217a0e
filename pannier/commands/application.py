"""The command line: which module serves which command."""

from typing import Annotated

import typer

import pannier
from pannier.commands import (
    ask,
    backends,
    budget,
    cache,
    chat,
    collections,
    corpus,
    deletion,
    evaluate,
    experiment,
    explain,
    feedback,
    ingest,
    jobs,
    load,
    models,
    profiles,
    retrieve,
    stack,
    stats,
    top,
    usage,
)

__all__ = ["application"]

application = typer.Typer(
    name="pannier",
    help="The front door of a fleet of Ollama servers: answers over your documents.",
    no_args_is_help=True,
    add_completion=False,
    # A traceback of ours is for us, without the values of all variables.
    pretty_exceptions_enable=False,
)

application.command("up")(stack.up)
application.command("down")(stack.down)
application.command("status")(stack.status)
application.command("ingest")(ingest.ingest)
application.command("ask")(ask.ask)
application.command("chat")(chat.chat)
application.command("retrieve")(retrieve.retrieve)
application.command("eval")(evaluate.evaluate_folder)
application.command("documents")(corpus.documents)
application.command("document")(corpus.document)
application.command("chunks")(corpus.chunks)
application.command("label")(corpus.label)
application.command("delete")(deletion.delete)
application.command("stats")(stats.stats)
application.command("load")(load.load)
application.command("top")(top.top)
application.command("usage")(usage.usage)
application.command("experiment")(experiment.experiment)
application.command("explain")(explain.explain)
application.add_typer(backends.application, name="backends")
application.add_typer(models.application, name="models")
application.add_typer(cache.application, name="cache")
application.add_typer(collections.application, name="collections")
application.add_typer(jobs.application, name="jobs")
application.add_typer(profiles.application, name="profiles")
application.add_typer(feedback.application, name="feedback")
application.add_typer(budget.application, name="budget")


def _show_version(asked: bool) -> None:  # noqa: FBT001 - called with the option's value
    if asked:
        typer.echo(pannier.__version__)
        raise typer.Exit


@application.callback()
def _options(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    """Takes the options that stand before the command."""
