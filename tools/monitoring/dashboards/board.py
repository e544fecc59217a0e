"""Dashboards: sections of panels, laid out, with the variables and links that all share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tools.monitoring.dashboards.panels import (
    CHOSEN,
    OF_THE_SERVICES,
    PROMETHEUS,
    RUNBOOK,
    TRACES_UID,
    Json,
    Panel,
)
from tools.monitoring.dashboards.promql import with_matchers

__all__ = ["COLUMNS", "RUNBOOK_ADDRESS", "Dashboard", "Section"]

COLUMNS: Final = 24
"""Width of a dashboard in Grafana's grid."""

RUNBOOK_ADDRESS: Final = "docs/runbook.md"
"""Where the runbook is, unless the dashboards' hidden variable `runbook` is given an address."""

SCHEMA_VERSION: Final = 41
FIRST_ROW_ID: Final = 1001
TAG: Final = "pannier"


@dataclass(frozen=True, slots=True)
class Section:
    """Panels under a title.

    Attributes:
        title: what they have in common.
        panels: from left to right, line by line; each line is full and of one height.
    """

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """A dashboard before it is laid out.

    Attributes:
        uid: its address and the name of its file.
        title: what it is called.
        question: what it answers, a sentence.
        group: a tag beside that of the project.
        refresh: how often it asks anew.
        span: how far back it looks at first.
        sections: its panels.
        of_traces: whether it is about spans and not about the services' own metrics.
    """

    uid: str
    title: str
    question: str
    group: str
    refresh: str
    span: str
    sections: Sequence[Section]
    of_traces: bool = False

    def json(self) -> Json:
        """The dashboard as Grafana imports it.

        Raises:
            ValueError: A line of panels is not full, or of several heights.
        """
        return {
            "id": None,
            "uid": self.uid,
            "title": self.title,
            "description": self.question,
            "tags": [TAG, self.group],
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": False,
            "graphTooltip": 1,
            "fiscalYearStartMonth": 0,
            "weekStart": "",
            "timezone": "browser",
            "refresh": self.refresh,
            "time": {"from": f"now-{self.span}", "to": "now"},
            "timepicker": {"refresh_intervals": ["10s", "30s", "1m", "5m", "15m", "30m", "1h"]},
            "annotations": {"list": _annotations(of_traces=self.of_traces)},
            "templating": {"list": _variables(of_traces=self.of_traces)},
            "links": _links(self.uid),
            "panels": list(self._placed()),
        }

    def _placed(self) -> Iterator[Json]:
        y = 0
        for index, section in enumerate(self.sections):
            yield _row(FIRST_ROW_ID + index, section.title, y)
            y += 1
            x = 0
            height = 0
            for panel in section.panels:
                height = height or panel.height
                if panel.height != height or x + panel.width > COLUMNS:
                    raise ValueError(f"{self.uid}: {panel.title!r} does not fit into its line")
                yield panel.json(x=x, y=y, dashboard_uid=self.uid)
                x += panel.width
                if x == COLUMNS:
                    x, y, height = 0, y + height, 0
            if x:
                raise ValueError(f"{self.uid}: the last line of {section.title!r} is not full")


def _row(number: int, title: str, y: int) -> Json:
    return {
        "id": number,
        "type": "row",
        "title": title,
        "collapsed": False,
        "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": y},
        "panels": [],
    }


def _annotations(*, of_traces: bool) -> list[Json]:
    alerts: Json = {
        "name": "Alerts",
        "datasource": PROMETHEUS,
        "enable": True,
        "hide": False,
        "iconColor": "red",
        "expr": 'ALERTS{alertstate="firing", alertname!="Watchdog"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{severity}}",
        "tagKeys": "severity",
        "step": "60s",
    }
    if of_traces:
        return [alerts]
    starts: Json = {
        "name": "Starts of services",
        "datasource": PROMETHEUS,
        "enable": True,
        "hide": False,
        "iconColor": "blue",
        "expr": with_matchers(f"process_start_time_seconds{{{OF_THE_SERVICES}}} * 1000", CHOSEN),
        "titleFormat": "{{job}} started",
        "textFormat": "{{instance}}",
        "useValueForTime": True,
        "step": "60s",
    }
    return [alerts, starts]


def _variables(*, of_traces: bool) -> list[Json]:
    runbook: Json = {
        "name": "runbook",
        "type": "constant",
        "label": "Runbook",
        "hide": 2,
        "skipUrlSync": True,
        "query": RUNBOOK_ADDRESS,
        "current": {"selected": False, "text": RUNBOOK_ADDRESS, "value": RUNBOOK_ADDRESS},
    }
    metrics = _datasource("datasource", "Metrics", "prometheus")
    if of_traces:
        services = _label_values("service", "Service", "traces_spanmetrics_calls_total", "service")
        return [metrics, _datasource("tempo", "Traces", "tempo"), services, runbook]
    chosen = with_matchers("service_build_info", {"job": CHOSEN["job"]})
    return [
        metrics,
        _label_values("job", "Service", "service_build_info", "job"),
        _label_values("instance", "Instance", chosen, "instance"),
        runbook,
    ]


def _datasource(name: str, label: str, kind: str) -> Json:
    return {
        "name": name,
        "type": "datasource",
        "label": label,
        "query": kind,
        "current": {"selected": False, "text": kind.title(), "value": kind},
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "options": [],
        "refresh": 1,
        "regex": "",
        "skipUrlSync": False,
    }


def _label_values(name: str, label: str, series: str, of: str) -> Json:
    query = f"label_values({series}, {of})"
    return {
        "name": name,
        "type": "query",
        "label": label,
        "datasource": PROMETHEUS,
        "definition": query,
        "query": {"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor"},
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "hide": 0,
        "includeAll": True,
        "allValue": ".+",
        "multi": True,
        "options": [],
        "refresh": 2,
        "regex": "",
        "skipUrlSync": False,
        "sort": 1,
    }


def _links(uid: str) -> list[Json]:
    links: list[Json] = [
        {
            "type": "dashboards",
            "title": "Dashboards",
            "tags": [TAG],
            "asDropdown": True,
            "includeVars": True,
            "keepTime": True,
            "targetBlank": False,
            "icon": "external link",
            "tooltip": "",
            "url": "",
        },
        _link("Runbook", RUNBOOK, new_tab=True),
    ]
    if uid != TRACES_UID:
        links.append(_link("Traces", f"/d/{TRACES_UID}", new_tab=False))
    return links


def _link(title: str, url: str, *, new_tab: bool) -> dict[str, Any]:
    return {
        "type": "link",
        "title": title,
        "url": url,
        "tags": [],
        "asDropdown": False,
        "includeVars": False,
        "keepTime": not new_tab,
        "targetBlank": new_tab,
        "icon": "doc",
        "tooltip": "",
    }
