"""Reads what the command line of `pannier load` says about traffic."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import typer

import deploy
from pannier.commands.durations import seconds_within
from pannier.load.arrivals import Stage
from pannier.load.question_files import BadQuestions, parse_questions
from pannier.load.scenario import BadScenario, Needs, Phase, Scenario, parse_scenario
from pannier.load.thresholds import BadThreshold, Threshold, parse_threshold
from pannier.load.traffic import TENANT_NAME, TENANT_RULE, Mix

__all__ = [
    "HIGHEST_RATE",
    "LONGEST_RUN_SECONDS",
    "find_scenario",
    "list_scenarios",
    "read_questions",
    "read_stage",
    "read_tenants",
    "read_thresholds",
    "read_weights",
    "simple_scenario",
]

LONGEST_RUN_SECONDS = 30 * 86_400.0
HIGHEST_RATE = 100_000.0
_FOLDER = Path(deploy.__file__).parent / "scenarios"
_DEMO_QUESTIONS = "questions.txt"

T = TypeVar("T")


def read_tenants(text: str) -> dict[str, float]:
    """Reads tenants with weights.

    Raises:
        typer.BadParameter: It cannot be read, or a name is no tenant's.
    """
    weights = read_weights(text, hint="--tenant")
    for name in weights:
        if not TENANT_NAME.fullmatch(name):
            raise typer.BadParameter(f"{name!r} is no tenant; {TENANT_RULE}", param_hint="--tenant")
    return weights


def read_weights(text: str, *, hint: str, known: Sequence[str] = ()) -> dict[str, float]:
    """Reads weights by name: `a=3,b=1`; a name alone has the weight 1.

    Args:
        text: As it was written.
        hint: The option, for the message.
        known: Names that are accepted; empty for any.

    Raises:
        typer.BadParameter: It cannot be read.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight = (each.strip() for each in part.partition("="))
        try:
            weights[name] = float(weight) if weight else 1.0
        except ValueError:
            weights[name] = -1.0
        if not name or not 0 <= weights[name] < float("inf"):
            raise typer.BadParameter("write weights as a=3,b=1", param_hint=hint)
        if known and name not in known:
            raise typer.BadParameter(
                f"there is no {name}; there are {', '.join(known)}", param_hint=hint
            )
    if not sum(weights.values()):
        raise typer.BadParameter("one weight must be above 0", param_hint=hint)
    return weights


def read_stage(text: str) -> Stage:
    """Reads a stage: `5:2m` for a steady rate, `1-10:30s` for one that changes.

    Raises:
        typer.BadParameter: It cannot be read.
    """
    rates, _, length = text.partition(":")
    start, dash, end = rates.partition("-")
    try:
        stage = Stage(
            seconds=seconds_within(0.001, LONGEST_RUN_SECONDS)(length),
            start_rate=float(start),
            end_rate=float(end if dash else start),
        )
    except (ValueError, typer.BadParameter) as error:
        raise typer.BadParameter(
            f"{text!r}: write RATE:DURATION or FROM-TO:DURATION, for example 1-10:30s",
            param_hint="--stage",
        ) from error
    if max(stage.start_rate, stage.end_rate) > HIGHEST_RATE:
        raise typer.BadParameter(
            f"{text!r}: a rate is at most {HIGHEST_RATE:g}", param_hint="--stage"
        )
    return stage


def read_thresholds(texts: Sequence[str]) -> tuple[Threshold, ...]:
    """Reads the conditions under which a run has failed.

    Raises:
        typer.BadParameter: One cannot be read.
    """
    return tuple(_read(parse_threshold, each, BadThreshold, "--fail-if") for each in texts)


def _read(parse: Callable[[str], T], text: str, failure: type[ValueError], hint: str) -> T:
    try:
        return parse(text)
    except failure as error:
        raise typer.BadParameter(str(error), param_hint=hint) from error


def read_questions(path: Path | None, *, hint: str = "--questions") -> list[tuple[str, ...]]:
    """Reads a file of questions; those about the demo's documents where there is none.

    Args:
        path: The file.
        hint: The option that names it, for the message.

    Raises:
        typer.BadParameter: It cannot be read.
    """
    path = path or _FOLDER / _DEMO_QUESTIONS
    try:
        return parse_questions(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, BadQuestions) as error:
        raise typer.BadParameter(f"{path}: {error}", param_hint=hint) from error


def list_scenarios() -> list[tuple[Scenario, Path]]:
    """Returns the scenarios that come along, by name.

    Raises:
        typer.BadParameter: One cannot be read.
    """
    return [(_load(path), path) for path in sorted(_FOLDER.glob("*.toml"))]


def find_scenario(name: str) -> tuple[Scenario, Path]:
    """Returns a scenario and where it is.

    Args:
        name: Of one that comes along, or of a file.

    Raises:
        typer.BadParameter: There is none, or it cannot be read.
    """
    path = _FOLDER / f"{name}.toml"
    if "/" in name or name.endswith(".toml") or not path.is_file():
        path = Path(name)
    if not path.is_file():
        raise typer.BadParameter(
            f"there is no scenario {name}; `pannier load --list-scenarios` shows those there are",
            param_hint="--scenario",
        )
    return _load(path), path


def _load(path: Path) -> Scenario:
    try:
        return parse_scenario(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path}: {error}", param_hint="--scenario") from error
    except BadScenario as error:
        listed = "".join(f"\n  {each}" for each in error.problems)
        raise typer.BadParameter(f"{path}:{listed}", param_hint="--scenario") from error


def simple_scenario(
    stages: Sequence[Stage],
    mix: Mix,
    *,
    model: str,
    cache_policy: str,
    fresh: bool,
) -> Scenario:
    """Makes a scenario of the command line, in which nothing goes wrong."""
    return Scenario(
        name="load",
        about="as the command line says",
        settings={},
        needs=Needs(),
        phases=tuple(
            Phase(
                name=f"stage {number}",
                stage=stage,
                mix=mix,
                model=model,
                cache_policy=cache_policy,
                fresh=fresh,
            )
            for number, stage in enumerate(stages, 1)
        ),
    )
