"""The metrics of one process: counted here, shown at `/metrics`."""

import logging
import platform
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

from opentelemetry.trace import format_span_id, format_trace_id, get_current_span
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
)

from services.common.clock import SystemClock
from services.common.exposition import Page
from services.common.families import Counts, Family, Number
from services.common.metric import (
    LATENCY_BUCKETS_SECONDS,
    OVERFLOW,
    Label,
    Metric,
    MetricKind,
    one_of,
    up_to,
)

__all__ = [
    "COMMON_METRICS",
    "LATENCY_BUCKETS_SECONDS",
    "OVERFLOW",
    "RPC_CLIENT_METRICS",
    "Label",
    "Metric",
    "MetricKind",
    "Metrics",
    "one_of",
    "up_to",
]

_logger = logging.getLogger(__name__)

# The series of all methods with all codes would be thousands that stay at zero.
_METHOD = up_to(64, "methods of this service")
_CODE = up_to(17, "gRPC status codes")
_POOL = up_to(4, "connection pools of this service")
# A loop that is late by more than a tenth of a second stalls everybody.
_LAG_BUCKETS_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip

COMMON_METRICS = (
    Metric(
        "rpc_server_call_duration_seconds",
        MetricKind.HISTOGRAM,
        "Time from a call's arrival until its end.",
        {"rpc_method": _METHOD, "rpc_response_status_code": _CODE},
        has_exemplars=True,
    ),
    Metric(
        "rpc_server_active_calls", MetricKind.GAUGE, "Calls under way.", {"rpc_method": _METHOD}
    ),
    Metric(
        "service_errors_total",
        MetricKind.COUNTER,
        "Calls that failed, by the reason in their status.",
        {"error_type": up_to(160, "reasons of errors")},
    ),
    Metric(
        "service_event_loop_lag_seconds",
        MetricKind.HISTOGRAM,
        "How late the event loop was to run a timer, four times a second.",
        {},
        _LAG_BUCKETS_SECONDS,
    ),
    Metric(
        "service_build_info",
        MetricKind.GAUGE,
        "Always 1; says what is running.",
        {
            "version": up_to(1, "one per process"),
            "revision": up_to(1, "one per process"),
            "python_version": up_to(1, "one per process"),
        },
    ),
    Metric(
        "connection_pool_connections",
        MetricKind.GAUGE,
        "Connections that are open.",
        {"pool": _POOL, "state": one_of("in_use", "idle")},
    ),
    Metric(
        "connection_pool_max_connections",
        MetricKind.GAUGE,
        "Most connections that may be open.",
        {"pool": _POOL},
    ),
    Metric(
        "connection_pool_wait_seconds",
        MetricKind.HISTOGRAM,
        "How long was waited for a connection.",
        {"pool": _POOL},
    ),
    Metric(
        "telemetry_spans_exported_total",
        MetricKind.COUNTER,
        "Spans that a receiver has taken.",
        {},
    ),
    Metric(
        "telemetry_spans_dropped_total",
        MetricKind.COUNTER,
        "Spans that are lost, for want of room in the queue or of a receiver that takes them.",
        {},
    ),
    Metric(
        "telemetry_label_overflow_total",
        MetricKind.COUNTER,
        "Values of a label that it has no room for, counted each time.",
        {"label": up_to(64, "labels of this service")},
    ),
)
"""What every service measures."""

RPC_CLIENT_METRICS = (
    Metric(
        "rpc_client_call_duration_seconds",
        MetricKind.HISTOGRAM,
        "Time of a call to another service, until its whole answer.",
        {"rpc_method": up_to(64, "methods of other services"), "rpc_response_status_code": _CODE},
        has_exemplars=True,
    ),
)
"""What services measure that call others."""


class Metrics:
    """The metrics of one process.

    Counters and histograms whose label values are all known exist from the start: a rate over one
    that is first seen with its first event misses that event, and a ratio without a denominator
    never reaches a threshold. Gauges exist once they are set.

    Args:
        catalogue: Everything the process may measure besides `COMMON_METRICS`.
        version: Version of the service.
        revision: Revision of the source that it was built from.
        exemplar_minimum_seconds: Shortest observation that points at its trace. Where only some
            traces are kept, a link to one that was dropped helps nobody.

    Attributes:
        page: Writes all of it for Prometheus.
        registry: Shows all of it to the client library.
    """

    def __init__(
        self,
        catalogue: Sequence[Metric],
        *,
        version: str,
        revision: str = "unknown",
        exemplar_minimum_seconds: float = 0.0,
    ) -> None:
        process = CollectorRegistry()
        ProcessCollector(registry=process)
        PlatformCollector(registry=process)
        GCCollector(registry=process)
        self._exemplar_minimum_seconds = exemplar_minimum_seconds
        self._metrics = {metric.name: metric for metric in (*COMMON_METRICS, *catalogue)}
        clock = SystemClock()
        self._families = {name: Family(metric, clock) for name, metric in self._metrics.items()}
        self.page = Page(process, tuple(self._families.values()))
        self.registry = CollectorRegistry()
        self.registry.register(process)
        for family in self._families.values():
            self.registry.register(family)
        self._children: dict[tuple[str, ...], Number | Counts] = {}
        self._seen: dict[str, set[str]] = {}
        self._refreshers: list[Callable[[], None]] = []
        self._refreshing = threading.Lock()
        # Guards which series there are: scrapes bring some up and remove some, in their threads.
        self._changing = threading.RLock()
        for metric in self._metrics.values():
            self._create(metric)
            for label in metric.labels:
                self.count("telemetry_label_overflow_total", label, amount=0)
        self.set_gauge("service_build_info", 1, version, revision, platform.python_version())

    @property
    def catalogue(self) -> tuple[Metric, ...]:
        """Everything the process may measure."""
        return tuple(self._metrics.values())

    def count(self, name: str, *labels: str, amount: float = 1) -> None:
        """Adds to a counter.

        Args:
            name: A counter of the catalogue.
            labels: Its label values, in the order of its declaration.
            amount: How much, 0 or more.

        Raises:
            ValueError: It is less: Prometheus takes a counter that falls for a new process's.
        """
        if amount < 0:
            raise ValueError(f"{name} cannot fall by {-amount}")
        child = self._child(name, labels)
        assert isinstance(child, Number)  # noqa: S101 - the catalogue is checked by tests
        child.add(amount)

    def observe(self, name: str, value: float, *labels: str) -> None:
        """Adds a value to a histogram, with the running trace where its metric has exemplars."""
        child = self._child(name, labels)
        assert isinstance(child, Counts)  # noqa: S101
        if self._metrics[name].has_exemplars and value >= self._exemplar_minimum_seconds:
            child.observe(value, _exemplar())
        else:
            child.observe(value)

    def set_gauge(self, name: str, value: float, *labels: str) -> None:
        """Sets a gauge."""
        child = self._child(name, labels)
        assert isinstance(child, Number)  # noqa: S101
        child.set(value)

    def add_gauge(self, name: str, difference: float, *labels: str) -> None:
        """Changes a gauge by a difference."""
        child = self._child(name, labels)
        assert isinstance(child, Number)  # noqa: S101
        child.add(difference)

    def replace_gauge(self, name: str, values: Mapping[tuple[str, ...], float]) -> None:
        """Sets all series of a gauge at once; those that are no more among them are removed.

        Those that a label has no room for are added up.

        Args:
            name: A gauge of the catalogue.
            values: The value of each series, by its label values in the order of declaration.
        """
        with self._changing:
            shown = [key for key in self._children if key[0] == name]
            self._remove([key for key in shown if key[1:] not in values])
            sums: dict[Number | Counts, float] = {}
            for labels, value in values.items():
                child = self._child(name, labels)
                sums[child] = sums.get(child, 0.0) + value
            for child, total in sums.items():
                assert isinstance(child, Number)  # noqa: S101
                child.set(total)

    def _remove(self, keys: Sequence[tuple[str, ...]]) -> None:
        """Removes series, and makes room for other values where no series has theirs any more."""
        if not keys:
            return
        for key in keys:
            self._families[key[0]].remove(*key[1:])
            del self._children[key]
        shown = {pair for key in self._children for pair in self._pairs(key)}
        for label, value in {pair for key in keys for pair in self._pairs(key)} - shown:
            self._seen.get(label, set()).discard(value)

    def _pairs(self, key: tuple[str, ...]) -> Iterable[tuple[str, str]]:
        return zip(self._metrics[key[0]].labels, key[1:], strict=True)

    def create_series(self, label: str, value: str) -> None:
        """Creates what is counted of something that has come up, at zero.

        Args:
            label: Name of a label whose values come up on the way.
            value: The new value; of metrics with further labels of this kind nothing is created.
        """
        for metric in self._metrics.values():
            if label in metric.labels:
                self._create(metric, **{label: value})

    def remove_series(self, label: str, value: str) -> None:
        """Removes what was measured of something that exists no more.

        A series comes into being again, from nothing, when something is measured anew.

        Args:
            label: Name of a label; of metrics without it nothing is removed.
            value: Its value.
        """
        with self._changing:
            self._remove([key for key in self._children if (label, value) in self._pairs(key)])

    def _create(self, metric: Metric, **given: str) -> None:
        # What a gauge would show before it is set is not true.
        if metric.kind is not MetricKind.GAUGE:
            for values in metric.known_series(**given):
                self._child(metric.name, values)

    def before_scrape(self, refresh: Callable[[], None]) -> None:
        """Has gauges be brought up to date when somebody looks, and not with each change.

        Args:
            refresh: Sets them; called in another thread than the event loop's.
        """
        self._refreshers.append(refresh)

    def refresh(self) -> None:
        """Brings up to date what is only known on request; one failure does not hide the rest."""
        with self._refreshing:
            for refresh in self._refreshers:
                try:
                    refresh()
                except Exception:
                    _logger.exception("metrics are out of date")

    def _child(self, name: str, labels: tuple[str, ...]) -> Number | Counts:
        child = self._children.get((name, *labels))
        return self._make_child(name, labels) if child is None else child

    def _make_child(self, name: str, labels: tuple[str, ...]) -> Number | Counts:
        declared = self._metrics[name].labels.items()
        with self._changing:
            bounded = tuple(
                self._bounded(label, bound, value)
                for (label, bound), value in zip(declared, labels, strict=True)
            )
            child = self._children.get((name, *bounded))
            if child is None:
                child = self._families[name].series(*bounded)
                # By its bounded values only: callers could name values without end.
                self._children[(name, *bounded)] = child
        return child

    def _bounded(self, name: str, label: Label, value: str) -> str:
        if value == OVERFLOW or value in label.values:
            return value
        if not label.values:
            seen = self._seen.setdefault(name, set())
            if value in seen:
                return value
            if len(seen) < label.limit:
                seen.add(value)
                return value
        self.count("telemetry_label_overflow_total", name)
        return OVERFLOW


def _exemplar() -> dict[str, str] | None:
    context = get_current_span().get_span_context()
    if not context.trace_flags.sampled:
        return None
    return {
        "trace_id": format_trace_id(context.trace_id),
        "span_id": format_span_id(context.span_id),
    }
