"""Scenarios: traffic in phases, what goes wrong in each, and which alert that shows.

A scenario is a TOML file; `docs/load.md` describes it. Whatever is wrong with one is said at once.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pannier.load.arrivals import Stage
from pannier.load.faults import KINDS, RANGES, STUTTER, Fault
from pannier.load.reading import Table
from pannier.load.traffic import TENANT_NAME, TENANT_RULE, Mix

__all__ = ["MODES", "BadScenario", "Needs", "Phase", "Scenario", "Standin", "parse_scenario"]

MODES = ("direct", "rag", "deep", "agent")
_CACHE_POLICIES = ("use", "bypass", "refresh")
_WEB_POLICIES = ("auto", "never", "always")
_LONGEST_RATE = 100_000.0


class BadScenario(ValueError):
    """A scenario that cannot be read.

    Args:
        problems: All that is wrong with it.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standin:
    """A stand-in that somebody must start.

    Attributes:
        port: Where it listens on loopback.
        profile: Name of its profile beside the scenario.
    """

    port: int
    profile: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What must be so for a scenario to show what it is to show.

    Attributes:
        prices: Whether rag must have prices.
        cache_limit_bytes: Most bytes that the layers of the cache may keep in its process; 0 for
            any.
        health_interval_seconds: Least seconds between two health checks; 0 for any. Cannot be
            checked, only said.
        least_seconds: How long the scenario must be at least, whatever its time scale: some things
            take their time. 0 for any.
        standins: Stand-ins that somebody must start.
    """

    prices: bool = False
    cache_limit_bytes: int = 0
    health_interval_seconds: float = 0.0
    least_seconds: float = 0.0
    standins: tuple[Standin, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A part of a scenario.

    Attributes:
        name: What it is called.
        stage: Its length and rate.
        mix: What is asked.
        model: Model that answers; empty for the service's.
        cache_policy: `use`, `bypass` or `refresh`.
        web: `auto`, `never` or `always`.
        questions: Name of a file of questions beside the scenario; empty for those of the run.
        fresh: Whether its new questions are such that no other run has asked.
        faults: What goes wrong meanwhile.
        changes_every_seconds: How often a document of a collection of its own changes; 0 for never.
        verdicts_every_seconds: How often an answer to a similar question, in a namespace of its
            own, is said to be wrong; 0 for never.
    """

    name: str
    stage: Stage
    mix: Mix
    model: str = ""
    cache_policy: str = "use"
    web: str = "auto"
    questions: str = ""
    fresh: bool = False
    faults: tuple[Fault, ...] = ()
    changes_every_seconds: float = 0.0
    verdicts_every_seconds: float = 0.0

    def happenings(self) -> list[str]:
        """Says what goes wrong, and what is done beside the questions."""
        told = [each.describe() for each in self.faults]
        if self.changes_every_seconds:
            told.append(f"a document changes every {self.changes_every_seconds:g} s")
        if self.verdicts_every_seconds:
            told.append(f"an answer is said to be wrong every {self.verdicts_every_seconds:g} s")
        return told


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Traffic in phases.

    Attributes:
        name: What it is called.
        about: What happens, in a sentence.
        shows: Alerts that fire.
        fires_after_seconds: How long after the beginning, at real speed; 0 where none fires.
        settings: Environment variables that the services need, for people to set.
        needs: What can be checked of it.
        afterwards: What ends the alert where the end of the run does not: a command, or words.
        phases: Its parts.
    """

    name: str
    about: str
    shows: tuple[str, ...] = ()
    fires_after_seconds: float = 0.0
    settings: Mapping[str, str]
    needs: Needs
    afterwards: str = ""
    phases: tuple[Phase, ...]

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return sum(each.stage.seconds for each in self.phases)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """All that goes wrong in it."""
        return tuple(fault for phase in self.phases for fault in phase.faults)

    @property
    def processes(self) -> tuple[str, ...]:
        """Processes of the local stack that it pauses."""
        return tuple(dict.fromkeys(each.process for each in self.faults if each.process))

    @property
    def needs_standins(self) -> bool:
        """Whether the backends must be stand-ins."""
        return any(not each.process for each in self.faults)

    def scaled(self, ratio: float) -> "Scenario":
        """Returns the scenario with all durations multiplied, and rates kept."""
        return replace(
            self,
            fires_after_seconds=self.fires_after_seconds * ratio,
            phases=tuple(replace(each, stage=each.stage.scaled(ratio)) for each in self.phases),
        )


def parse_scenario(text: str) -> Scenario:
    """Reads a scenario.

    Raises:
        BadScenario: Something is wrong with it.
    """
    try:
        document: Any = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadScenario([f"is no TOML: {error}"]) from error
    problems: list[str] = []
    table = Table(document, "", problems)
    traffic = _traffic(table)
    scenario = Scenario(
        name=table.text("name"),
        about=table.text("about"),
        shows=table.texts("shows"),
        fires_after_seconds=table.seconds("fires_after", 0.0) if "fires_after" in table else 0.0,
        settings=_settings(table.table("settings")),
        needs=_needs(table.table("needs")),
        afterwards=table.text("afterwards", ""),
        phases=tuple(_phase(each, traffic) for each in table.tables("phases")),
    )
    table.end()
    if not scenario.phases and not any(each.startswith("phases") for each in problems):
        problems.append("phases: there must be at least one")
    if scenario.shows and "fires_after" not in table:
        problems.append("fires_after: say when the alert fires")
    if not problems and scenario.fires_after_seconds > scenario.seconds:
        problems.append("fires_after: is after the end of the scenario")
    if problems:
        raise BadScenario(problems)
    return scenario


def _traffic(table: Table) -> Mapping[str, Any]:
    """Takes what counts for all phases; it is read with each of them."""
    traffic = table.value("traffic")
    if isinstance(traffic, Mapping):
        return traffic
    if traffic is not None:
        table.complain("traffic", "must be a table")
    return {}


def _settings(table: Table) -> dict[str, str]:
    return {name: table.text(name, "") for name in table}


def _needs(table: Table) -> Needs:
    needs = Needs(
        prices=table.flag("prices"),
        cache_limit_bytes=table.integer("cache_limit_bytes", 0),
        health_interval_seconds=_seconds_or_never(table, "health_interval"),
        least_seconds=_seconds_or_never(table, "least_duration"),
        standins=tuple(_standin(each) for each in table.tables("standins")),
    )
    table.end()
    return needs


def _standin(table: Table) -> Standin:
    standin = Standin(
        port=table.integer("port", 11601, least=1, most=65_535), profile=table.text("profile")
    )
    table.end()
    return standin


def _seconds_or_never(table: Table, key: str) -> float:
    return table.seconds(key, 1.0) if key in table else 0.0


def _phase(table: Table, traffic: Mapping[str, Any]) -> Phase:
    """Reads a phase; what it does not say, `traffic` says for all."""
    table = table.with_defaults(traffic, "traffic")
    rate = table.number("rate", least=0.0, most=_LONGEST_RATE)
    end_rate = table.number("end_rate", rate, most=_LONGEST_RATE) if "end_rate" in table else rate
    mix = _mix(table)
    phase = Phase(
        name=table.text("name"),
        stage=Stage(seconds=table.seconds("duration"), start_rate=rate, end_rate=end_rate),
        mix=mix,
        model=table.text("model", ""),
        cache_policy=table.choice("cache", "use", _CACHE_POLICIES),
        web=table.choice("web", "auto", _WEB_POLICIES),
        questions=table.text("questions", ""),
        fresh=table.flag("fresh"),
        faults=tuple(each for table in table.tables("faults") if (each := _fault(table))),
        changes_every_seconds=_seconds_or_never(table, "document_changes_every"),
        verdicts_every_seconds=_seconds_or_never(table, "wrong_verdicts_every"),
    )
    table.end()
    return phase


def _mix(table: Table) -> Mix:
    modes = table.weights("modes", {"rag": 1.0})
    for name in modes:
        if name not in MODES:
            table.complain("modes", f"there is no {name}; there are {', '.join(MODES)}")
    tenants = table.weights("tenants", {"default": 1.0})
    for name in tenants:
        if not TENANT_NAME.fullmatch(name):
            table.complain("tenants", f"{name!r} is no tenant; {TENANT_RULE}")
    mix = Mix(
        modes=modes,
        tenants=tenants,
        repeat_ratio=table.number("repeat_ratio", 0.0, most=1.0),
        paraphrase_ratio=table.number("paraphrase_ratio", 0.0, most=1.0),
        window=table.integer("window", 100, least=1, most=100_000),
        zipf_exponent=table.number("zipf_exponent", 1.0, most=10.0),
    )
    if mix.repeat_ratio + mix.paraphrase_ratio > 1:
        table.complain("repeat_ratio", "is with paraphrase_ratio more than 1")
    return mix


def _fault(table: Table) -> Fault | None:
    kind_name = table.text("kind")
    kind = KINDS.get(kind_name)
    if kind is None:
        # What is missing, or no text, was complained about.
        if kind_name:
            table.complain("kind", f"there is no {kind_name}; there are {', '.join(KINDS)}")
        return None
    options = {name: _option(table, name, default) for name, default in kind.defaults.items()}
    if kind_name == STUTTER and not 0 < options["seconds"] < options["every"]:
        table.complain("seconds", "must be more than 0, and less than every")
    limits: dict[str, Any] = {}
    backends: int | None = None
    if kind.rules is not None:
        limits = {name: table.text(name) for name in ("path", "model") if name in table}
        if "probability" in table:
            limits["probability"] = table.number("probability", 1.0, most=1.0)
        limits |= {name: table.integer(name, 1) for name in ("seed", "count") if name in table}
        if "backends" in table:
            backends = table.integer("backends", 1, least=1, most=64)
    table.end()
    return Fault(kind=kind_name, options=options, limits=limits, backends=backends)


def _option(table: Table, name: str, default: Any) -> Any:
    """Takes an option of a fault, of the type that its default has."""
    if default is None or isinstance(default, str):
        return table.text(name, default)
    least, most = RANGES.get(name, (0, 2**31))
    if isinstance(default, int):
        return table.integer(name, default, least=int(least), most=int(most))
    return table.number(name, default, least=least, most=most)
