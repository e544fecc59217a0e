"""Scenarios: traffic in phases, what goes wrong in each, and which alert that shows.

A scenario is a TOML file; `docs/load.md` describes it. Whatever is wrong with one is said at once.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pannier.load.arrivals import Stage
from pannier.load.faults import KINDS, Fault
from pannier.load.reading import Table
from pannier.load.traffic import Mix

__all__ = ["MODES", "BadScenario", "Needs", "Phase", "Scenario", "parse_scenario"]

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
class Needs:
    """What must be so for a scenario to show what it is to show.

    Attributes:
        prices: Whether rag must have prices.
        cache_limit_bytes: Most bytes that the layers of the cache may keep in its process; 0 for
            any.
        health_interval_seconds: Least seconds between two health checks; 0 for any. Cannot be
            checked, only said.
    """

    prices: bool = False
    cache_limit_bytes: int = 0
    health_interval_seconds: float = 0.0


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
        phases: Its parts.
    """

    name: str
    about: str
    shows: tuple[str, ...] = ()
    fires_after_seconds: float = 0.0
    settings: Mapping[str, str]
    needs: Needs
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
    traffic = table.value("traffic") or {}
    scenario = Scenario(
        name=table.text("name"),
        about=table.text("about"),
        shows=table.texts("shows"),
        fires_after_seconds=table.seconds("fires_after", 0.0) if "fires_after" in table else 0.0,
        settings=_settings(table.table("settings")),
        needs=_needs(table.table("needs")),
        phases=tuple(_phase(each, traffic) for each in table.tables("phases")),
    )
    table.end()
    if not scenario.phases and "phases" not in table:
        problems.append("phases: there must be at least one")
    if scenario.shows and not scenario.fires_after_seconds:
        problems.append("fires_after: say when the alert fires")
    if problems:
        raise BadScenario(problems)
    return scenario


def _settings(table: Table) -> dict[str, str]:
    return {name: table.text(name) for name in table}


def _needs(table: Table) -> Needs:
    needs = Needs(
        prices=table.flag("prices"),
        cache_limit_bytes=int(table.number("cache_limit_bytes", 0)),
        health_interval_seconds=table.seconds("health_interval", 1.0)
        if "health_interval" in table
        else 0.0,
    )
    table.end()
    return needs


def _phase(table: Table, traffic: Any) -> Phase:
    """Reads a phase; what it does not say, `traffic` says for all."""
    if isinstance(traffic, Mapping):
        table = table.with_defaults(traffic)
    else:
        table.problems.append("traffic: must be a table")
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
    )
    table.end()
    return phase


def _mix(table: Table) -> Mix:
    modes = table.weights("modes", {"rag": 1.0})
    for name in modes:
        if name not in MODES:
            table.complain("modes", f"there is no {name}; there are {', '.join(MODES)}")
    mix = Mix(
        modes=modes,
        tenants=table.weights("tenants", {"default": 1.0}),
        repeat_ratio=table.number("repeat_ratio", 0.0, most=1.0),
        paraphrase_ratio=table.number("paraphrase_ratio", 0.0, most=1.0),
        window=int(table.number("window", 100, least=1, most=100_000)),
        zipf_exponent=table.number("zipf_exponent", 1.0, most=10.0),
    )
    if mix.repeat_ratio + mix.paraphrase_ratio > 1:
        table.complain("repeat_ratio", "is with paraphrase_ratio more than 1")
    return mix


def _fault(table: Table) -> Fault | None:
    kind_name = table.text("kind")
    kind = KINDS.get(kind_name)
    if kind is None:
        if kind_name:
            table.complain("kind", f"there is no {kind_name}; there are {', '.join(KINDS)}")
        return None
    options: dict[str, Any] = {}
    for name, default in kind.defaults.items():
        if default is None or isinstance(default, str):
            options[name] = table.text(name, default)
        else:
            options[name] = type(default)(table.number(name, default))
    limits: dict[str, Any] = {}
    backends: int | None = None
    if kind.rules is not None:
        limits = {name: table.text(name) for name in ("path", "model") if name in table}
        if "probability" in table:
            limits["probability"] = table.number("probability", 1.0, most=1.0)
        limits |= {name: int(table.number(name, 1)) for name in ("seed", "count") if name in table}
        if "backends" in table:
            backends = int(table.number("backends", 1, least=1, most=64))
    table.end()
    return Fault(kind=kind_name, options=options, limits=limits, backends=backends)
