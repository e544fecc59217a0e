"""Panels as Grafana reads them, made from the little that tells them apart.

What all panels share is written here once: data sources, exemplars, links, limits, and the text
that stands where there is no value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tools.monitoring.dashboards.promql import with_matchers
from tools.monitoring.dashboards.queries import used_metrics

__all__ = [
    "CHOSEN",
    "CHOSEN_SPANS",
    "NOTHING",
    "OF_THE_SERVICES",
    "PROMETHEUS",
    "RUNBOOK",
    "TEMPO",
    "TRACES_UID",
    "Limits",
    "Panel",
    "Query",
    "Search",
    "States",
    "Why",
    "above",
    "below",
    "prometheus_target",
    "state_mappings",
]

Json = dict[str, Any]

States = Mapping[int, tuple[str, str]]
"""Values that mean a state: value to text and colour."""

PROMETHEUS: Final[Json] = {"type": "prometheus", "uid": "${datasource}"}
TEMPO: Final[Json] = {"type": "tempo", "uid": "${tempo}"}
RUNBOOK: Final = "${runbook}"
TRACES_UID: Final = "traces"
NOTHING: Final = "nothing measured"
"""Stands where there is no value, for whatever reason: without traffic a panel looks as it does
without the service, so that it must not say which of them it is."""

OF_THE_SERVICES: Final = 'job=~"rag|cache|balancer"'
"""For metrics that other processes show, too, such as those of a Python process."""

CHOSEN: Final[Mapping[str, str]] = {"job": '=~"$job"', "instance": '=~"$instance"'}
"""What the variables at the top of a dashboard choose, as conditions."""

CHOSEN_SPANS: Final[Mapping[str, Mapping[str, str]]] = {
    "traces_spanmetrics": {"service": '=~"$service"'},
    "traces_service_graph": {"client": '=~"$service"'},
}
"""The same for metrics that Tempo derives from spans: they have neither job nor instance."""

EXEMPLARS: Final = frozenset(
    {
        "rag_request_duration_seconds_bucket",
        "rag_time_to_first_token_seconds_bucket",
        "cache_lookup_duration_seconds_bucket",
        "balancer_operation_duration_seconds_bucket",
        "balancer_request_duration_seconds_bucket",
        "balancer_time_to_first_token_seconds_bucket",
        "rpc_server_call_duration_seconds_bucket",
        "rpc_client_call_duration_seconds_bucket",
    }
)
"""Histograms of latency whose observations carry the trace that they come from."""


@dataclass(frozen=True, slots=True)
class Why:
    """What a panel is good for, in words.

    Attributes:
        what: what it shows.
        why: why that matters.
        do: what to do about it.
    """

    what: str
    why: str
    do: str

    def text(self) -> str:
        """The three as Grafana's Markdown."""
        return f"{self.what}\n\n**Why:** {self.why}\n\n**What to do:** {self.do}"


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL query of a panel.

    Attributes:
        expr: PromQL; the conditions on job and instance are added.
        legend: what a series is called, with labels in double braces.
    """

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Search:
    """One question to Tempo.

    Attributes:
        query: TraceQL; empty for the service map.
        kind: `traces` or `spans` for a search, `metrics`, or `map`.
        limit: most traces found.
    """

    query: str
    kind: str
    limit: int = 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Colours by value.

    Attributes:
        steps: colour and the value from which it holds; None for the first.
        shown: whether a picture over time has a line at them.
    """

    steps: tuple[tuple[str, float | None], ...] = (("green", None),)
    shown: bool = False

    def json(self) -> Json:
        """The thresholds of a panel."""
        steps = [{"color": colour, "value": value} for colour, value in self.steps]
        return {"mode": "absolute", "steps": steps}


def above(alert: float, warning: float | None = None) -> Limits:
    """Colours where little is good: red from where the alert fires."""
    middle = () if warning is None else (("yellow", warning),)
    return Limits((("green", None), *middle, ("red", alert)), shown=True)


def below(alert: float, good: float | None = None) -> Limits:
    """Colours where much is good: red up to where the alert fires."""
    if good is None:
        return Limits((("red", None), ("green", alert)), shown=True)
    return Limits((("red", None), ("yellow", alert), ("green", good)), shown=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A panel before it has its place.

    Attributes:
        number: its id in the dashboard.
        kind: Grafana's type of panel.
        title: what it is called.
        why: its description.
        queries: what it asks.
        unit: Grafana's id of the unit.
        width: in twenty-fourths of the dashboard.
        height: in Grafana's grid, of 30 pixels.
        instant: whether it asks for one moment and not for a range.
        format: `time_series`, `table` or `heatmap`.
        alerts: alerts that watch what it shows; they lead to the runbook.
        limits: colours by value.
        least: lower end of the axis.
        most: upper end of the axis.
        soft_most: upper end of the axis as long as no value is above it.
        decimals: digits after the point; Grafana chooses if None.
        empty: stands where there is no value.
        mappings: values that mean a state: value to text and colour.
        custom: what the type of panel wants with each field.
        options: what the type of panel wants.
        overrides: settings of single fields.
        transformations: what is done with the answers before they are shown.
    """

    number: int
    kind: str
    title: str
    why: Why
    queries: Sequence[Query | Search]
    unit: str
    width: int
    height: int
    instant: bool = False
    format: str = "time_series"
    alerts: Sequence[str] = ()
    limits: Limits = field(default_factory=Limits)
    least: float | None = None
    most: float | None = None
    soft_most: float | None = None
    decimals: int | None = None
    empty: str = NOTHING
    mappings: States = field(default_factory=dict)
    custom: Json = field(default_factory=dict)
    options: Json = field(default_factory=dict)
    overrides: Sequence[Json] = ()
    transformations: Sequence[Json] = ()

    def json(self, *, x: int, y: int, dashboard_uid: str) -> Json:
        """The panel as it stands in a dashboard.

        Args:
            x: Its left edge in twenty-fourths.
            y: Its upper edge in the grid.
            dashboard_uid: The dashboard that it stands in.
        """
        tempo = any(isinstance(query, Search) for query in self.queries)
        return {
            "id": self.number,
            "type": self.kind,
            "title": self.title,
            "description": self.why.text(),
            "datasource": TEMPO if tempo else PROMETHEUS,
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "targets": [self._target(*each) for each in enumerate(self.queries)],
            "fieldConfig": {"defaults": self._defaults(), "overrides": list(self.overrides)},
            "options": self.options,
            "links": self._links(dashboard_uid),
            **({"transformations": list(self.transformations)} if self.transformations else {}),
        }

    def _target(self, index: int, query: Query | Search) -> Json:
        ref_id = chr(ord("A") + index)
        if isinstance(query, Search):
            return _tempo_target(query, ref_id)
        return prometheus_target(query, ref_id, instant=self.instant, result_format=self.format)

    def _defaults(self) -> Json:
        defaults: Json = {
            "unit": self.unit,
            "thresholds": self.limits.json(),
            "noValue": self.empty,
            "mappings": state_mappings(self.mappings),
            "custom": dict(self.custom),
        }
        for name, value in (
            ("min", self.least),
            ("max", self.most),
            ("decimals", self.decimals),
        ):
            if value is not None:
                defaults[name] = value
        if self.soft_most is not None:
            defaults["custom"]["axisSoftMax"] = self.soft_most
        if self.kind in ("stat", "gauge", "bargauge"):
            defaults["color"] = {"mode": "thresholds"}
        elif self.kind in ("timeseries", "piechart"):
            defaults["color"] = {"mode": "palette-classic"}
        return defaults

    def _links(self, dashboard_uid: str) -> list[Json]:
        links = [
            {
                "title": f"Runbook: {alert}",
                "url": f"{RUNBOOK}#{alert.lower()}",
                "targetBlank": True,
            }
            for alert in self.alerts
        ]
        if dashboard_uid != TRACES_UID:
            links.append(
                {
                    "title": "Traces of this time",
                    "url": f"/d/{TRACES_UID}?${{__url_time_range}}",
                    "targetBlank": False,
                }
            )
        return links


def prometheus_target(query: Query, ref_id: str, *, instant: bool, result_format: str) -> Json:
    """A query to Prometheus as Grafana sends it, with what the variables choose."""
    names = used_metrics(query.expr)
    chosen = next(
        (
            conditions
            for prefix, conditions in CHOSEN_SPANS.items()
            if any(name.startswith(prefix) for name in names)
        ),
        CHOSEN,
    )
    return {
        "refId": ref_id,
        "datasource": PROMETHEUS,
        "editorMode": "code",
        "expr": with_matchers(query.expr, chosen),
        "legendFormat": query.legend or "__auto",
        "format": result_format,
        "instant": instant,
        "range": not instant,
        "exemplar": not instant and any(name in EXEMPLARS for name in names),
    }


def _tempo_target(search: Search, ref_id: str) -> Json:
    if search.kind == "map":
        return {"refId": ref_id, "datasource": TEMPO, "queryType": "serviceMap"}
    return {
        "refId": ref_id,
        "datasource": TEMPO,
        "queryType": "traceql",
        "query": search.query,
        "limit": search.limit,
        "tableType": search.kind if search.kind in ("traces", "spans") else "traces",
        "metricsQueryType": "range",
    }


def state_mappings(states: States) -> list[Json]:
    """States as Grafana maps values."""
    if not states:
        return []
    options = {
        str(value): {"text": text, "color": colour, "index": index}
        for index, (value, (text, colour)) in enumerate(states.items())
    }
    return [{"type": "value", "options": options}]
