"""System health: do the processes run well, and do their parts succeed?"""

from tools.monitoring import thresholds as limits
from tools.monitoring.dashboards.board import Dashboard, Section
from tools.monitoring.dashboards.expressions import (
    increase,
    mean,
    quantile,
    rate,
    ratio,
    total,
)
from tools.monitoring.dashboards.kinds import bars, events, gauge, lines, pie, stat
from tools.monitoring.dashboards.panels import (
    OF_THE_SERVICES,
    Limits,
    Query,
    Why,
    above,
    below,
)
from tools.monitoring.dashboards.tables import Column, table

__all__ = ["SYSTEM_HEALTH"]

_TOOLS = "rag_tool_executions_total"
_FAILED_TOOLS = f'{_TOOLS}{{outcome=~"failed|timed_out"}}'
_RETRIEVALS = "rag_retrievals_total"
_FAILED_RETRIEVALS = f'{_RETRIEVALS}{{outcome="error"}}'
_IN_USE = 'connection_pool_connections{state="in_use"}'
_CALLS = "rpc_server_call_duration_seconds_count"
_OURS = f"{{{OF_THE_SERVICES}}}"
_OLDEST = f'python_gc_collections_total{{{OF_THE_SERVICES}, generation="2"}}'
_POOL_SIZE = "connection_pool_max_connections"
_TOOLS_GOOD = f"1 - {ratio(rate(_FAILED_TOOLS, 'tool'), rate(_TOOLS, 'tool'))}"
# What gRPC's conventions call errors of the server and not of its caller.
_FAULTS = "UNKNOWN|DEADLINE_EXCEEDED|UNIMPLEMENTED|INTERNAL|UNAVAILABLE|DATA_LOSS"

_RUNNING = Section(
    "What is running",
    (
        table(
            1,
            "Build information",
            Why(
                "Version, revision and Python of each service that runs.",
                "Several versions of one service are normal only during a roll-out.",
                "An old version that stays: that instance was not restarted.",
            ),
            Query("count by (job, version, revision, python_version) (service_build_info)"),
            labels={
                "job": "Service",
                "version": "Version",
                "revision": "Revision",
                "python_version": "Python",
            },
            columns=(Column("Instances", decimals=0),),
            width=9,
            height=7,
            empty="no service is scraped",
        ),
        stat(
            10,
            "System uptime",
            Why(
                "Time since the start of each service's youngest process.",
                "A process that keeps starting anew loses its local cache and its queue.",
                "A few minutes without a roll-out: look for the reason in its last logs.",
            ),
            Query(f"min by (job) (time() - process_start_time_seconds{_OURS})", "{{job}}"),
            unit="dtdurations",
            decimals=1,
            width=7,
            height=7,
            alerts=("TargetDown",),
        ),
        pie(
            4,
            "Error types",
            Why(
                "Calls that failed within the chosen range, by service and reason. A failure that "
                "is passed on counts in each service that it passes.",
                "The reason says what to do; docs/errors.md lists each.",
                "Take the largest one, find a trace with it, and follow it to the first red span.",
            ),
            Query(
                increase("service_errors_total", "job, error_type") + " > 0",
                "{{job}}: {{error_type}}",
            ),
            height=7,
            width=8,
            empty="no errors counted",
        ),
    ),
)

_CALLS_AND_POOLS = Section(
    "Calls and connections",
    (
        bars(
            2,
            "Connection pool status",
            Why(
                "Connections in use in relation to the most there may be, by service and pool, of "
                "the instance that has fewest left. Pools without a limit have no bar.",
                "At the full bar each further request waits for a connection.",
                "Full for minutes: see Pool wait on Deep dive; raise the pool's size or find "
                "the slow query that holds them.",
            ),
            Query(
                f"max by (job, pool) ({_IN_USE} / ignoring (state) ({_POOL_SIZE} > 0))",
                "{{job}}, {{pool}}",
            ),
            unit="percentunit",
            limits=Limits((("green", None), ("yellow", 0.7), ("red", 0.9))),
        ),
        lines(
            3,
            "Active connections",
            Why(
                "Connections in use by pool, and calls under way by service.",
                "Both grow when something behind them gets slow, before latency shows it.",
                "One pool at its height while calls pile up: what it leads to is the bottleneck.",
            ),
            Query(total(_IN_USE, "job, pool"), "{{job}}, {{pool}}"),
            Query(total("rpc_server_active_calls", "job"), "{{job}}, calls"),
            unit="short",
        ),
        lines(
            13,
            "Calls that failed by the server's fault",
            Why(
                "Calls that ended in a status that is the server's fault, among all, by service.",
                "It shows the service where a failure begins; callers only pass it on.",
                "Follow the service that rose first; the others follow it.",
            ),
            Query(
                ratio(
                    rate(f'{_CALLS}{{rpc_response_status_code=~"{_FAULTS}"}}', "job"),
                    rate(_CALLS, "job"),
                ),
                "{{job}}",
            ),
            unit="percentunit",
            small=2 * limits.ERROR_RATIO,
            limits=above(limits.ERROR_RATIO),
        ),
    ),
)

_PARTS = Section(
    "Parts of an answer",
    (
        gauge(
            7,
            "Tool success rate",
            Why(
                "Calls of tools that neither failed nor timed out, among all that agents asked "
                "for, now: of all tools, and of the one that does worst, which the alert watches.",
                "An agent without its tools answers from memory.",
                "Below its limit: Tool executions on Cost optimisation by tool, then a failed "
                "trace; web_search fails when the web cannot be reached.",
            ),
            Query(f"1 - {ratio(rate(_FAILED_TOOLS), rate(_TOOLS))}", "all tools"),
            Query(f"bottomk(1, {_TOOLS_GOOD})", "{{tool}}"),
            unit="percentunit",
            most=1,
            limits=below(1 - limits.TOOL_FAILURE_RATIO),
            height=8,
            alerts=("ToolFailureRateHigh",),
        ),
        gauge(
            8,
            "RAG success rate",
            Why(
                "Retrievals that did not fail, now; those that found nothing have not failed.",
                "Without passages there is no answer with sources.",
                "Below its limit: PostgreSQL or the embedding models are away; look at Hop "
                "latency and Pool wait on Deep dive.",
            ),
            Query(
                f"1 - {ratio(rate(_FAILED_RETRIEVALS), rate(_RETRIEVALS))}",
                "succeeded",
            ),
            unit="percentunit",
            most=1,
            limits=below(1 - limits.RETRIEVAL_FAILURE_RATIO),
            height=8,
            alerts=("RAGFailureRateHigh",),
        ),
        bars(
            9,
            "Agent usage",
            Why(
                "How often each part of the pipeline worked within the chosen range, and how "
                "often it failed.",
                "It shows what questions really use.",
                "Failures of one agent: its traces are red at that span.",
            ),
            Query(increase('rag_agent_invocations_total{outcome="success"}', "agent"), "{{agent}}"),
            Query(
                increase('rag_agent_invocations_total{outcome="error"}', "agent") + " > 0",
                "{{agent}}, failed",
            ),
            unit="short",
            width=12,
            decimals=0,
        ),
        lines(
            5,
            "Quality score trend",
            Why(
                "Mean quality of answers, and the quality that a tenth of them stays below.",
                "The mean is what the alert watches; the tenth falls first.",
                "If only the tenth falls, some topic lacks documents; if both do, retrieval or "
                "the model changed.",
            ),
            Query(mean("rag_quality_score"), "mean"),
            Query(quantile(0.1, "rag_quality_score"), "a tenth is below"),
            unit="percentunit",
            limits=below(limits.LOW_QUALITY_SCORE),
            alerts=("LowQualityScore",),
        ),
        lines(
            6,
            "Warnings rate",
            Why(
                "Warnings that answers carry each second, by type.",
                "A warning tells the user what not to rely on.",
                "One type that grows: read two such answers; the type says where to look.",
            ),
            *events("rag_warnings_total", "type", "{{type}}"),
            unit="ops",
        ),
        lines(
            12,
            "Background work",
            Why(
                "Work that no caller waits for each second, by kind and outcome.",
                "It is dropped where as much of its kind is under way as may be.",
                "Errors of one kind: its logs. Dropped ones: add an instance of rag.",
            ),
            *events("rag_background_work_total", "kind, outcome", "{{kind}}, {{outcome}}"),
            unit="ops",
        ),
    ),
)

_PROCESSES = Section(
    "Processes",
    (
        lines(
            11,
            "Event-loop lag P99",
            Why(
                "How late the event loop of each instance runs its timers; 99 of 100 were earlier.",
                "While the loop is late, every call of the process waits.",
                "Above the line: something computes on the loop, or the process needs more CPU.",
            ),
            Query(
                quantile(0.99, "service_event_loop_lag_seconds", "job, instance"),
                "{{job}}, {{instance}}",
            ),
            unit="s",
            limits=above(limits.EVENT_LOOP_LAG_SECONDS),
            alerts=("EventLoopLag",),
        ),
        lines(
            14,
            "CPU",
            Why(
                "Cores that the process of each instance keeps busy; rag's helpers that read "
                "documents are processes of their own.",
                "A service runs on one event loop; near 1 it can do little more.",
                "Near 1 for long: add an instance.",
            ),
            Query(
                rate(f"process_cpu_seconds_total{_OURS}", "job, instance"), "{{job}}, {{instance}}"
            ),
            unit="short",
        ),
        lines(
            15,
            "Memory",
            Why(
                "Memory that the process of each instance occupies, without rag's helpers that "
                "read documents.",
                "It should level off once the caches are full.",
                "If it keeps growing, compare with Cache memory usage on Cache performance and "
                "Resumable answers on Deep dive.",
            ),
            Query(
                total(f"process_resident_memory_bytes{_OURS}", "job, instance"),
                "{{job}}, {{instance}}",
            ),
            unit="bytes",
        ),
        lines(
            16,
            "Open files",
            Why(
                "Open files and connections in relation to the most the process may have.",
                "At the limit no new connection can be accepted.",
                "Above a half: raise the limit, and look for connections that are not closed.",
            ),
            Query(
                ratio(
                    total(f"process_open_fds{_OURS}", "job, instance"),
                    total(f"process_max_fds{_OURS}", "job, instance"),
                ),
                "{{job}}, {{instance}}",
            ),
            unit="percentunit",
            small=0.5,
            width=6,
        ),
        lines(
            17,
            "Garbage collections",
            Why(
                "Runs of Python's garbage collector over its oldest generation each second, by "
                "service; of the younger ones there are more, and they cost next to nothing.",
                "They stop the process for a moment.",
                "More than one a second: look at event-loop lag.",
            ),
            Query(rate(_OLDEST, "job"), "{{job}}"),
            unit="ops",
            width=6,
        ),
        lines(
            18,
            "Queries missing in the log",
            Why(
                "Queries that the log of queries lacks each second, by cause.",
                "Profiles and experiments miss them; usage and budgets do not.",
                "Full: PostgreSQL is too slow for the traffic. Rejected: see rag's logs.",
            ),
            Query(rate("rag_query_log_dropped_total", "cause"), "{{cause}}"),
            unit="ops",
            width=6,
        ),
        stat(
            19,
            "Targets down",
            Why(
                "Instances of the three services that Prometheus knows of and cannot read.",
                "What is not read is missing in every panel, and no ratio shows it.",
                "More than 0: is the process there, and its address for metrics reachable?",
            ),
            Query(f"sum(up{_OURS} == bool 0)", "down"),
            unit="short",
            height=8,
            limits=above(1),
            alerts=("TargetDown",),
        ),
    ),
)

SYSTEM_HEALTH = Dashboard(
    uid="system-health",
    title="System health",
    question="Do the processes run well, and do the parts of an answer succeed?",
    group="health",
    refresh="10s",
    span="30m",
    sections=(_RUNNING, _CALLS_AND_POOLS, _PARTS, _PROCESSES),
)
