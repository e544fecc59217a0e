"""`pannier load`: questions on a schedule, faults on command, and what comes of both."""

import secrets
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from pannier.commands.connection import CollectionOption, TimeoutOption, run
from pannier.commands.durations import seconds_within
from pannier.commands.load_calls import AskOptions
from pannier.commands.load_checks import Services
from pannier.commands.load_files import check_figures_path
from pannier.commands.load_options import (
    HIGHEST_RATE,
    LONGEST_RUN_SECONDS,
    find_scenario,
    read_questions,
    read_stage,
    read_tenants,
    read_thresholds,
    read_weights,
    simple_scenario,
)
from pannier.commands.load_run import RunOptions
from pannier.commands.load_scenarios import clear_all_faults, show_list, show_scenario
from pannier.commands.load_session import Session, run_session
from pannier.commands.output import Output
from pannier.commands.stack import cancelled_by_signals
from pannier.load.arrivals import Stage
from pannier.load.scenario import MODES, Scenario
from pannier.load.traffic import Mix

__all__ = ["load"]

_SEEDS = 1_000_000
_DEFAULT_RATE = 2.0
_DEFAULT_SECONDS = 30.0
_TRAFFIC = "Traffic"
_QUESTIONS = "Questions"
_SCENARIOS = "Scenarios and faults"
_SERVICES = "Services"
_LONGEST_GRACE_SECONDS = 3_600.0


class Arrivals(Enum):
    """How questions come."""

    POISSON = "poisson"
    CONSTANT = "constant"


class CachePolicy(Enum):
    """What may come from the cache."""

    USE = "use"
    BYPASS = "bypass"
    REFRESH = "refresh"


def load(
    *,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=HIGHEST_RATE,
            help="Questions per second. Default: 2.",
            rich_help_panel=_TRAFFIC,
        ),
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(
            parser=seconds_within(0.001, LONGEST_RUN_SECONDS),
            metavar="DURATION",
            help="How long to ask; of a scenario, how long all of it takes. Default: 30s.",
            rich_help_panel=_TRAFFIC,
        ),
    ] = None,
    ramp_up: Annotated[
        float,
        typer.Option(
            parser=seconds_within(0, LONGEST_RUN_SECONDS),
            metavar="DURATION",
            help="Begin with no rate and reach --rate after so long, before the duration.",
            rich_help_panel=_TRAFFIC,
        ),
    ] = "0",  # type: ignore[assignment]  # read by the parser
    stage: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RATE[-RATE]:DURATION",
            help="A steady or changing rate, as 5:2m or 1-10:30s; repeatable, instead of --rate "
            "and --duration.",
            rich_help_panel=_TRAFFIC,
        ),
    ] = None,
    arrivals: Annotated[
        Arrivals,
        typer.Option(help="At random, or evenly.", rich_help_panel=_TRAFFIC),
    ] = Arrivals.POISSON,
    mode: Annotated[
        str,
        typer.Option(
            metavar="WEIGHTS",
            help="direct, rag, deep, agent with weights: rag=8,direct=2.",
            rich_help_panel=_TRAFFIC,
        ),
    ] = "rag",
    tenant: Annotated[
        str,
        typer.Option(
            metavar="WEIGHTS",
            envvar="PANNIER_TENANT",
            help="Tenants with weights: a=3,b=1; each needs the collection.",
            rich_help_panel=_TRAFFIC,
        ),
    ] = "default",
    seed: Annotated[
        int | None,
        typer.Option(
            help="The same seed, the same traffic. Default: another one each time.",
            rich_help_panel=_TRAFFIC,
        ),
    ] = None,
    max_in_flight: Annotated[
        int,
        typer.Option(
            min=1,
            max=100_000,
            help="Questions under way at once; those due beyond are counted as refused.",
            rich_help_panel=_TRAFFIC,
        ),
    ] = 500,
    questions: Annotated[
        Path | None,
        typer.Option(
            help="File with a question per line, other wordings after tabs, or JSON Lines. "
            "Default: about the demo's documents.",
            rich_help_panel=_QUESTIONS,
        ),
    ] = None,
    repeat_ratio: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Share that repeats an earlier one.", rich_help_panel=_QUESTIONS
        ),
    ] = 0.5,
    paraphrase_ratio: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Share that asks an earlier one in other words.",
            rich_help_panel=_QUESTIONS,
        ),
    ] = 0.0,
    window: Annotated[
        int,
        typer.Option(
            min=1,
            max=100_000,
            help="How many earlier ones may be asked again.",
            rich_help_panel=_QUESTIONS,
        ),
    ] = 100,
    zipf: Annotated[
        float,
        typer.Option(
            min=0,
            max=10,
            help="How much the latest are preferred: weight rank^-ZIPF.",
            rich_help_panel=_QUESTIONS,
        ),
    ] = 1.0,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh",
            help="Number new questions by the seed, so that no earlier run has had them cached.",
            rich_help_panel=_QUESTIONS,
        ),
    ] = False,
    collection: CollectionOption = "standard-library",
    model: Annotated[
        str,
        typer.Option(
            help="Model that answers. Default: the service's.", rich_help_panel=_QUESTIONS
        ),
    ] = "",
    cache_policy: Annotated[
        CachePolicy,
        typer.Option("--cache", help="What the cache is used for.", rich_help_panel=_QUESTIONS),
    ] = CachePolicy.USE,
    stream: Annotated[
        bool, typer.Option("--stream/--unary", help="Whether answers are streamed.")
    ] = True,
    scenario: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE",
            help="Run a scenario: its phases, mixes and faults.",
            rich_help_panel=_SCENARIOS,
        ),
    ] = "",
    time_scale: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=1000,
            help="Multiply all durations of the scenario.",
            rich_help_panel=_SCENARIOS,
        ),
    ] = None,
    standin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Stand-in to be told to fail; repeatable. Default: all backends.",
            rich_help_panel=_SCENARIOS,
        ),
    ] = None,
    list_: Annotated[
        bool,
        typer.Option(
            "--list-scenarios", help="Show the scenarios there are.", rich_help_panel=_SCENARIOS
        ),
    ] = False,
    show: Annotated[
        str,
        typer.Option(
            "--show-scenario",
            metavar="NAME|FILE",
            help="Show a scenario and what it needs.",
            rich_help_panel=_SCENARIOS,
        ),
    ] = "",
    clear_faults: Annotated[
        bool,
        typer.Option(
            "--clear-faults",
            help="Undo what a run that was killed has left behind.",
            rich_help_panel=_SCENARIOS,
        ),
    ] = False,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="Exit with 1 where it holds: p95>2s, errors>1%, mode.rag.p99>5s; repeatable.",
        ),
    ] = None,
    json_file: Annotated[
        str,
        typer.Option(
            "--json", metavar="FILE", help="Write all figures as JSON; - for standard output."
        ),
    ] = "",
    grace: Annotated[
        float,
        typer.Option(
            parser=seconds_within(0, _LONGEST_GRACE_SECONDS),
            metavar="DURATION",
            help="What questions under way get after Ctrl-C.",
        ),
    ] = "5s",  # type: ignore[assignment]  # read by the parser
    address: Annotated[
        str, typer.Option(help="Address of rag, host:port.", rich_help_panel=_SERVICES)
    ] = "",
    balancer_address: Annotated[
        str, typer.Option(help="Address of the balancer.", rich_help_panel=_SERVICES)
    ] = "",
    cache_address: Annotated[
        str, typer.Option(help="Address of the cache.", rich_help_panel=_SERVICES)
    ] = "",
    connections: Annotated[
        int,
        typer.Option(
            min=1,
            max=64,
            help="Connections that questions take in turn.",
            rich_help_panel=_SERVICES,
        ),
    ] = 1,
    timeout: TimeoutOption = 120.0,
) -> None:
    """Ask questions on a schedule, whatever becomes of them, and measure what does."""
    services = Services(rag=address, balancer=balancer_address, cache=cache_address)
    if list_:
        show_list()
        return
    if show:
        show_scenario(*find_scenario(show))
        return
    if clear_faults:
        run(lambda output: clear_all_faults(output, services, tuple(standin or ())))
    thresholds = read_thresholds(fail_if or ())
    if json_file not in ("", "-"):
        try:
            check_figures_path(Path(json_file))
        except OSError as error:
            raise typer.BadParameter(str(error), param_hint="--json") from error
    if scenario:
        for given, option in ((rate, "--rate"), (stage, "--stage"), (ramp_up, "--ramp-up")):
            if given:
                raise typer.BadParameter("a scenario has its own", param_hint=option)
        planned, path = find_scenario(scenario)
        planned = planned.scaled(_scale(planned, time_scale, duration))
        folder = path.parent
    else:
        if time_scale is not None:
            raise typer.BadParameter("needs --scenario", param_hint="--time-scale")
        mix = _mix(mode, tenant, repeat_ratio, paraphrase_ratio, window, zipf)
        stages = _stages(stage, rate, duration, ramp_up)
        planned = simple_scenario(
            stages, mix, model=model, cache_policy=cache_policy.value, fresh=fresh
        )
        folder = Path()
    asked = {
        name: read_questions(folder / name, hint="--scenario")
        if name
        else read_questions(questions)
        for name in {each.questions for each in planned.phases}
    }
    options = RunOptions(
        poisson=arrivals is Arrivals.POISSON,
        seed=secrets.randbelow(_SEEDS) if seed is None else seed,
        max_in_flight=max_in_flight,
        # None takes longer than its deadline.
        drain_seconds=timeout + 1,
        grace_seconds=grace,
    )
    how = AskOptions(collection=collection, streaming=stream, deadline_seconds=timeout)

    session = Session(
        scenario=planned,
        questions=asked,
        options=options,
        how=how,
        services=services,
        standins=tuple(standin or ()),
        connections=connections,
        thresholds=thresholds,
        json_file=json_file,
    )

    async def main(output: Output) -> int:
        with cancelled_by_signals():
            return await run_session(output, session)

    run(main)


def _scale(scenario: Scenario, time_scale: float | None, duration: float | None) -> float:
    if time_scale is not None and duration is not None:
        raise typer.BadParameter("give one of it and --duration", param_hint="--time-scale")
    if duration is not None:
        return duration / scenario.seconds
    return 1.0 if time_scale is None else time_scale


def _stages(
    written: list[str] | None, rate: float | None, duration: float | None, ramp_up: float
) -> list[Stage]:
    if written:
        for given, option in ((rate, "--rate"), (duration, "--duration"), (ramp_up, "--ramp-up")):
            if given:
                raise typer.BadParameter("--stage says it already", param_hint=option)
        return [read_stage(each) for each in written]
    reached = _DEFAULT_RATE if rate is None else rate
    length = _DEFAULT_SECONDS if duration is None else duration
    ramp = [Stage(seconds=ramp_up, start_rate=0.0, end_rate=reached)] if ramp_up else []
    return [*ramp, Stage(seconds=length, start_rate=reached, end_rate=reached)]


def _mix(
    modes: str,
    tenants: str,
    repeat_ratio: float,
    paraphrase_ratio: float,
    window: int,
    zipf: float,
) -> Mix:
    if repeat_ratio + paraphrase_ratio > 1:
        raise typer.BadParameter(
            "is with --repeat-ratio more than 1", param_hint="--paraphrase-ratio"
        )
    return Mix(
        modes=read_weights(modes, hint="--mode", known=MODES),
        tenants=read_tenants(tenants),
        repeat_ratio=repeat_ratio,
        paraphrase_ratio=paraphrase_ratio,
        window=window,
        zipf_exponent=zipf,
    )
