"""Traces: who calls whom, and which questions were slow, failed or lesser ones?

The tables by span are of metrics that Tempo derives from the spans that reach it; the searches
are TraceQL. Attributes are those that the services set; docs/telemetry.md lists them.
"""

from tools.monitoring import thresholds as limits
from tools.monitoring.dashboards.board import Dashboard, Section
from tools.monitoring.dashboards.expressions import PICKED, quantile, rate, ratio
from tools.monitoring.dashboards.panels import Limits, Query, Search, Why
from tools.monitoring.dashboards.tables import (
    Column,
    service_map,
    table,
    trace_lines,
    traces,
)

__all__ = ["TRACES"]

_CHOSEN = 'resource.service.name =~ "${service:pipe}"'
# The one span of each question that says what became of it: that of its call, or that of the work
# on its answer where the caller has left before.
_QUESTION = "span.app.rag.outcome != nil"
_CALLS = "traces_spanmetrics_calls_total"
_FAILED = f'{_CALLS}{{status_code="STATUS_CODE_ERROR"}}'
_SPAN = "service, span_name"
_REQUESTS = "traces_service_graph_request_total"
_EDGE = "client, server"
_MOST_FOUND = 50
_RED = Limits((("green", None), ("red", limits.ERROR_RATIO)))


def _mean(attribute: str) -> str:
    """The mean of what attempts at answers say of themselves."""
    return (
        f'{{ span.app.balancer.attempt != nil && name =~ "chat .*" }} | avg_over_time({attribute})'
    )


_SAMPLED = "Estimated from the traces that Tempo keeps, each counted for all it stands for."

_MAP = Section(
    "Who calls whom",
    (
        service_map(
            1,
            "Service map",
            Why(
                "The services, Redis, PostgreSQL and the backends, with calls between them; the "
                "ring shows the share that failed.",
                "It shows at a glance which part is red.",
                "Click a red node for its traces. A missing node: nothing was called there, or "
                "its spans get lost.",
            ),
        ),
        table(
            2,
            "Calls between services",
            Why(
                f"Rate, failures and time of the calls that the chosen services make. {_SAMPLED}",
                "The map shows colours, this table figures.",
                "The failing edge nearest to a backend or a store is the cause; the others pass "
                "it on.",
            ),
            Query(rate(_REQUESTS, _EDGE, window=PICKED)),
            Query(
                ratio(
                    rate("traces_service_graph_request_failed_total", _EDGE, window=PICKED),
                    rate(_REQUESTS, _EDGE, window=PICKED),
                )
            ),
            Query(
                quantile(0.95, "traces_service_graph_request_client_seconds", _EDGE, window=PICKED)
            ),
            labels={"client": "Caller", "server": "Called"},
            columns=(
                Column("Rate", "reqps", decimals=2),
                Column("Failed", "percentunit", _RED, decimals=1),
                Column("P95", "s", decimals=3),
            ),
            sort_by="P95",
        ),
        table(
            3,
            "Spans by rate, errors and time",
            Why(
                f"Each kind of span with its rate, share of errors and P95. {_SAMPLED}",
                "It is where a slow or failing step has its name.",
                "Sort by P95 and start with the longest that is no whole call.",
            ),
            Query(rate(_CALLS, _SPAN, window=PICKED)),
            Query(ratio(rate(_FAILED, _SPAN, window=PICKED), rate(_CALLS, _SPAN, window=PICKED))),
            Query(quantile(0.95, "traces_spanmetrics_latency", _SPAN, window=PICKED)),
            labels={"service": "Service", "span_name": "Span"},
            columns=(
                Column("Rate", "ops", decimals=2),
                Column("Errors", "percentunit", _RED, decimals=1),
                Column("P95", "s", decimals=3),
            ),
            sort_by="P95",
        ),
    ),
)

_QUESTIONS = Section(
    "Questions worth a look",
    (
        traces(
            4,
            "Slow questions",
            Why(
                f"Questions that took longer than {limits.SLOW_SECONDS:g} s, up to {_MOST_FOUND} "
                "that Tempo finds, the longest first; longer ones may be among the others.",
                "One long trace explains more than any percentile.",
                "Open one, and look for the span that the others wait for.",
            ),
            Search(
                f"{{ {_QUESTION} && duration > {limits.SLOW_SECONDS:g}s }} "
                "| select(span.app.rag.mode, span.app.rag.cache, span.app.rag.outcome)",
                "spans",
                limit=_MOST_FOUND,
            ),
            sort_by="Duration",
        ),
        traces(
            5,
            "Failed questions",
            Why(
                "Questions that ended in an error, as the error rate counts them.",
                "The first red span below is the cause; the red ones above pass it on.",
                "If all fail at the same span, compare Error types on System health.",
            ),
            Search(
                '{ span.app.rag.outcome = "error" } | select(span.app.rag.mode, span.app.tenant)',
                "spans",
            ),
            width=12,
        ),
        traces(
            6,
            "Degraded answers",
            Why(
                "Answers with at least one degradation, with mode and quality.",
                "They look like answers; here is what they lack.",
                "Open one: the stage that was skipped or failed is marked.",
            ),
            Search(
                '{ span.app.rag.degraded = true && span.app.rag.outcome = "success" } '
                "| select(span.app.rag.mode, span.app.rag.quality, span.app.rag.origin)",
                "spans",
            ),
            width=12,
        ),
        traces(
            7,
            "Failed attempts at backends",
            Why(
                "Attempts at backends that failed, with backend and attempt, also those whose "
                "question was answered by another one.",
                "Retries hide these from users and from every error rate.",
                "Several of one backend: drain it and look at its log.",
            ),
            Search(
                "{ span.app.balancer.attempt != nil && status = error } "
                "| select(span.app.backend, span.app.balancer.attempt)",
                "spans",
            ),
        ),
    ),
)

_TIMES = Section(
    "Over time, from spans",
    (
        trace_lines(
            8,
            "P95 by span",
            Why(
                "The time within which 95 of 100 spans of each name were done, in the traces that "
                "are kept: slow and failed ones all, of the rest a share.",
                "It has every step, also those that no metric counts.",
                "A step that grows alone is the cause of what grows above it.",
            ),
            Search(f"{{ {_CHOSEN} }} | quantile_over_time(duration, 0.95) by (name)", "metrics"),
            unit="s",
        ),
        trace_lines(
            9,
            "Failed spans",
            Why(
                "Spans that failed each second, by service, in the traces that are kept: all with "
                "a failure.",
                "Who fails first is the cause.",
                "Open Failed questions above at the time of the first step up.",
            ),
            Search(
                f"{{ {_CHOSEN} && status = error }} | rate() by (resource.service.name)", "metrics"
            ),
            unit="ops",
        ),
        trace_lines(
            10,
            "Waiting, loading, reading, writing",
            Why(
                "What an answer's time at the backends is made of: waiting for a slot, loading "
                "the model, reading the prompt, writing the answer; means of attempts, the last "
                "three of those that ended well.",
                "Each has its own cure.",
                "Waiting: more backends. Loading: pin the model. Reading: shorter prompts. "
                "Writing: shorter answers or a smaller model.",
            ),
            Search(_mean("span.app.balancer.queue_wait_s"), "metrics"),
            Search(_mean("span.app.ollama.load_s"), "metrics"),
            Search(_mean("span.app.ollama.prompt_eval_s"), "metrics"),
            Search(_mean("span.app.ollama.eval_s"), "metrics"),
            unit="s",
            names=("waiting", "loading", "reading", "writing"),
        ),
        trace_lines(
            11,
            "Questions by what the cache did",
            Why(
                "Answers each second by how the cache took part, by their spans.",
                "Traces that are kept are not all: compare with Answers given before on Cache "
                "performance.",
                "If hits are missing here and not there, sampling drops them.",
            ),
            Search("{ span.app.rag.cache != nil } | rate() by (span.app.rag.cache)", "metrics"),
            unit="ops",
        ),
    ),
)

TRACES = Dashboard(
    uid="traces",
    title="Traces",
    question="Who calls whom, and which questions were slow, failed or lesser ones?",
    group="traces",
    refresh="1m",
    span="1h",
    sections=(_MAP, _QUESTIONS, _TIMES),
    of_traces=True,
)
