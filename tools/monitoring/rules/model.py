"""What a rule of Prometheus is made of."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from tools.monitoring.rules.emit import Value

__all__ = ["RUNBOOK", "Alert", "Channel", "Group", "Panel", "Recording", "Severity", "alerts_of"]

RUNBOOK = "docs/runbook.md"
"""Where each alert has a heading; Alertmanager's templates and the dashboards put a base before."""


class Severity(StrEnum):
    """How soon somebody has to act."""

    CRITICAL = "critical"
    """At once: users are harmed."""
    WARNING = "warning"
    """Within a working day."""
    NONE = "none"
    """Never: nothing is wrong."""


class Channel(StrEnum):
    """Where an alert is sent; Alertmanager routes by a label for each."""

    SLACK = "slack"
    PAGERDUTY = "pagerduty"
    EMAIL = "email"
    WATCHDOG = "watchdog"
    """What notices that nothing comes any more."""


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel of a dashboard that shows what an alert is about.

    Attributes:
        dashboard: uid of the dashboard.
        number: id of the panel in it.
    """

    dashboard: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """A rule that tells somebody.

    Attributes:
        name: Its name, and its heading in the runbook.
        expr: PromQL, true where something is wrong.
        limit: The condition in words, for the table of all alerts.
        minutes: How long the condition must hold first.
        kept_minutes: How long the alert goes on when the condition has ended, against flapping.
        severity: How soon somebody has to act.
        channels: Where it is sent.
        service: Whom it tells of; while nothing at all is known of that, it is held back.
        summary: One line, without figures.
        description: What is the case, with `{{ $value }}` and labels.
        panel: What to look at first.
    """

    name: str
    expr: str
    limit: str
    minutes: int
    kept_minutes: int = 0
    severity: Severity
    channels: tuple[Channel, ...]
    service: str
    summary: str
    description: str
    panel: Panel

    @property
    def labels(self) -> dict[str, Value]:
        """The labels it adds to those of its expression."""
        routes: dict[str, Value] = {f"notify_{channel}": "yes" for channel in self.channels}
        return {"severity": self.severity.value, "service": self.service, **routes}

    @property
    def annotations(self) -> dict[str, Value]:
        """What a reader is told."""
        return {
            "summary": self.summary,
            "description": self.description,
            "runbook_url": f"{RUNBOOK}#{self.name.lower()}",
            "dashboard_uid": self.panel.dashboard,
            "panel_id": str(self.panel.number),
        }

    def to_rule(self) -> dict[str, Value]:
        """Returns the rule as Prometheus reads it."""
        rule: dict[str, Value] = {"alert": self.name, "expr": self.expr}
        if self.minutes:
            rule["for"] = _duration(self.minutes)
        if self.kept_minutes:
            rule["keep_firing_for"] = _duration(self.kept_minutes)
        return {**rule, "labels": self.labels, "annotations": self.annotations}


@dataclass(frozen=True, slots=True)
class Recording:
    """A rule that stores what others ask for.

    Attributes:
        name: Name of the series, `level:metric:operations`.
        expr: What is stored.
    """

    name: str
    expr: str

    def to_rule(self) -> dict[str, Value]:
        """Returns the rule as Prometheus reads it."""
        return {"record": self.name, "expr": self.expr}


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated together, in a file of their own.

    Attributes:
        name: Name of the group, and of its file without the ending.
        rules: In the order of their evaluation.
    """

    name: str
    rules: tuple[Alert | Recording, ...]

    def to_file(self) -> dict[str, Value]:
        """Returns the file as Prometheus reads it."""
        rules: list[Value] = [rule.to_rule() for rule in self.rules]
        return {"groups": [{"name": self.name, "rules": rules}]}


def alerts_of(groups: tuple[Group, ...]) -> Iterator[Alert]:
    """Yields the alerts of groups, in their order."""
    for group in groups:
        yield from (rule for rule in group.rules if isinstance(rule, Alert))


def _duration(minutes: int) -> str:
    return f"{minutes // 60}h" if minutes % 60 == 0 else f"{minutes}m"
