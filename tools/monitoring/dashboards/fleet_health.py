"""Fleet health: which backends work, and is the load spread well?"""

from tools.monitoring import thresholds as limits
from tools.monitoring.dashboards.board import Dashboard, Section
from tools.monitoring.dashboards.expressions import (
    increase,
    occurring,
    quantile,
    rate,
    ratio,
    total,
)
from tools.monitoring.dashboards.kinds import lines, on_the_right, override, pie, stat
from tools.monitoring.dashboards.panels import Limits, Query, States, Why, above
from tools.monitoring.dashboards.tables import Column, table

__all__ = ["FLEET_HEALTH"]

_HEALTHY: States = {0: ("out", "red"), 1: ("in use", "green")}
_UP: States = {0: ("down", "red"), 1: ("up", "green")}
_ATTEMPTS = "balancer_requests_total"
_RED_BELOW_ONE = Limits((("red", None), ("green", 1)))
_RED_FROM_ONE = Limits((("green", None), ("red", 1)))
# What one replica of the balancer finds wrong, is.
_IN_USE = "min by (backend) (balancer_backend_healthy)"
_WITHIN_BUCKETS = "An estimate: the buckets are wide."

_STATE = Section(
    "State of the backends",
    (
        stat(
            1,
            "Healthy instances",
            Why(
                "Backends that take requests, as every balancer sees them, how many there are, "
                "and how many are out: down, put out for their failures, or drained.",
                "The others carry the load of those that do not.",
                "One out: `pannier backends` says why; see its Ollama log. None in use: "
                "questions that the cache does not know get lesser answers or fail, and somebody "
                "is called.",
            ),
            Query(f"sum({_IN_USE})", "in use"),
            Query(f"count({_IN_USE})", "of"),
            Query(f"count({_IN_USE}) - sum({_IN_USE})", "out"),
            unit="short",
            width=6,
            height=8,
            limits=_RED_BELOW_ONE,
            alerts=("NoHealthyBackend", "BackendDown"),
            overrides=(
                override(("byFrameRefID", "B"), thresholds=Limits((("blue", None),)).json()),
                override(("byFrameRefID", "C"), thresholds=_RED_FROM_ONE.json()),
            ),
        ),
        table(
            2,
            "Instance status",
            Why(
                "Each backend: whether it takes requests, in how many seconds it would be done "
                "with one more, attempts under way, and how old its last check is; of several "
                "balancers the one that sees it worst counts.",
                "It is what the planner knows.",
                "Out: restart its Ollama, or `pannier backends resume` if it was drained; else it "
                "is taken back by itself. A check older than "
                f"{limits.HEALTH_CHECK_STALE_SECONDS:g} s: the balancer does not get to it.",
            ),
            Query(_IN_USE),
            Query("max by (backend) (balancer_backend_load_score)"),
            Query("sum by (backend) (balancer_backend_inflight)"),
            Query("time() - min by (backend) (balancer_backend_last_check_timestamp_seconds)"),
            labels={"backend": "Backend"},
            columns=(
                Column("State", "short", mappings=_HEALTHY),
                Column("Load score", "s", decimals=2),
                Column("In flight", decimals=0),
                Column(
                    "Last check",
                    "s",
                    Limits((("green", None), ("red", limits.HEALTH_CHECK_STALE_SECONDS))),
                    decimals=0,
                ),
            ),
            width=11,
            alerts=("BackendDown", "HealthCheckStale"),
        ),
        stat(
            10,
            "Service up",
            Why(
                "Whether Prometheus can read each instance of the three services.",
                "A service that is down shows as missing lines, never as an error.",
                "Down: is its process there, and does its address for metrics answer?",
            ),
            Query('up{job=~"rag|cache|balancer"}', "{{job}} {{instance}}"),
            unit="none",
            width=7,
            height=8,
            limits=_RED_BELOW_ONE,
            mappings=_UP,
            alerts=(
                "TargetDown",
                "RagMetricsAbsent",
                "CacheMetricsAbsent",
                "BalancerMetricsAbsent",
                "Watchdog",
            ),
        ),
        lines(
            5,
            "Error rate by instance",
            Why(
                "Attempts that failed or timed out among all, by backend.",
                "A backend may pass its checks and still fail at real work.",
                "One backend: drain it (`pannier backends drain`) and look at its log. All: the "
                "model or the network.",
            ),
            Query(
                ratio(
                    rate(f'{_ATTEMPTS}{{outcome=~"error|timeout"}}', "backend"),
                    rate(_ATTEMPTS, "backend"),
                ),
                "{{backend}}",
            ),
            unit="percentunit",
            small=2 * limits.ERROR_RATIO,
            limits=above(limits.ERROR_RATIO),
        ),
        lines(
            6,
            "Response time by instance",
            Why(
                "The time within which half, and 95 of 100, successful attempts were done, by "
                f"backend. {_WITHIN_BUCKETS} 120 s stands for more.",
                "Equal machines should take equal times.",
                "One that drifts away: heat, another user of its card, or a model that no longer "
                "fits.",
            ),
            Query(quantile(0.5, "balancer_request_duration_seconds", "backend"), "{{backend}} P50"),
            Query(
                quantile(0.95, "balancer_request_duration_seconds", "backend"), "{{backend}} P95"
            ),
            unit="s",
        ),
        lines(
            16,
            "Outcomes of requests",
            Why(
                "Requests to the balancer each second by their one outcome, however many "
                "attempts each had.",
                "Retries hide failures of backends; what is left is what callers see.",
                "Refused: the queue is full. Deadline: it is too long. Errors: no backend could.",
            ),
            Query(rate("balancer_outcomes_total", "outcome"), "{{outcome}}"),
            unit="reqps",
            stacked=True,
        ),
    ),
)

_LOAD = Section(
    "Load",
    (
        pie(
            3,
            "Load distribution",
            Why(
                "Attempts that ended within the chosen range, by backend, however they ended.",
                "No backend should be full while others idle.",
                "Unequal machines should have unequal shares; equal ones with unequal shares: "
                "see which models each of them holds.",
            ),
            Query(increase(_ATTEMPTS, "backend"), "{{backend}}"),
        ),
        lines(
            12,
            "Load spread (max over mean)",
            Why(
                "Attempts a second of the busiest backend in relation to the mean of all; those "
                "that are out count with 0.",
                "1 is perfectly even.",
                "Lasting values above 2 on equal machines: a model is loaded on few of them.",
            ),
            Query(
                f"max({rate(_ATTEMPTS, 'backend')}) / (avg({rate(_ATTEMPTS, 'backend')}) > 0)",
                "max over mean",
            ),
            unit="short",
        ),
        lines(
            4,
            "Load score by instance",
            Why(
                "Seconds until each backend would be done with one more request; lower is "
                "preferred.",
                "It is the figure that the planner compares.",
                "If all rise together, the fleet is too small for what is asked of it.",
            ),
            Query("max by (backend) (balancer_backend_load_score)", "{{backend}}"),
            unit="s",
        ),
        lines(
            7,
            "Routing policy in use",
            Why(
                "Choices of a backend each second, by their reason.",
                "round_robin_fallback means that no backend was healthy and one was tried "
                "nonetheless.",
                "Any round_robin_fallback: look at Healthy instances. Only only_candidate: each "
                "model is on one backend.",
            ),
            Query(rate("balancer_routing_decisions_total", "policy"), "{{policy}}"),
            unit="ops",
            stacked=True,
        ),
        lines(
            9,
            "Queue",
            Why(
                "Requests that wait for a slot by priority, and on the right how long 95 of 100 "
                "waited at most, an estimate; 120 s stands for more.",
                "Waiting is the first thing that grows when the fleet is too small.",
                "interactive waits behind batch: lower the batch share. system waits: the fleet "
                "is stuck.",
            ),
            Query(total("balancer_queue_depth", "priority"), "{{priority}} waiting"),
            Query(quantile(0.95, "balancer_queue_wait_seconds", "priority"), "{{priority}} P95"),
            unit="short",
            overrides=(on_the_right("B", "s"),),
        ),
        lines(
            14,
            "Slots taken by another replica",
            Why(
                "Slots each second that another replica of the balancer had taken first; always 0 "
                "with one replica.",
                "A few are normal with several replicas; each costs a new plan.",
                "Many: the replicas see each other's changes late; look at their shared store.",
            ),
            Query(rate("balancer_reservations_lost_total"), "lost"),
            unit="ops",
        ),
    ),
)

_FAULTS = Section(
    "Faults and cures",
    (
        lines(
            8,
            "Retries and health-check failures",
            Why(
                "Attempts repeated on another backend each second by the failure before, and "
                "health checks that failed by backend.",
                "Retries keep failures from users as long as there is a budget for them.",
                "connection: a backend is down. busy: it has other users. model_absent: pull the "
                "model there.",
            ),
            Query(occurring("balancer_retries_total", "reason"), "retry, {{reason}}"),
            Query(
                occurring('balancer_health_checks_total{outcome!="success"}', "backend"),
                "check of {{backend}}",
            ),
            unit="ops",
            alerts=("BackendDown",),
        ),
        lines(
            15,
            "Retry budget left",
            Why(
                "Share of the retry budget that was left at the last request, the least of all "
                "replicas.",
                "Without it failures reach the users, so that retries do not make an overload "
                "worse.",
                "Near 0: backends fail faster than they are taken out; see the panel beside.",
            ),
            Query("min(balancer_retry_budget_ratio)", "left"),
            unit="percentunit",
        ),
        lines(
            13,
            "Stalled models",
            Why(
                "Loaded models that did not answer, each second, by what came of it.",
                "A stalled model holds its slots until it is cured.",
                "hung: only a restart of that Ollama helps. Many cleared: the limit is too short.",
            ),
            Query(rate("balancer_stalls_total", "outcome"), "{{outcome}}"),
            unit="ops",
            alerts=("BackendStalled",),
        ),
        lines(
            17,
            "Canaries",
            Why(
                "Requests for a single token that failed or timed out each second, by backend, and "
                "all that were answered; they show whether a backend can do anything.",
                "They tell a busy backend from a dead one.",
                "Failures of one backend: it takes requests and answers none; restart its Ollama.",
            ),
            Query(
                rate('balancer_canaries_total{outcome!="success"}', "backend"),
                "{{backend}}",
            ),
            Query(rate('balancer_canaries_total{outcome="success"}'), "all answered"),
            unit="ops",
        ),
        stat(
            11,
            "Redis and degraded mode",
            Why(
                "Whether every replica of the cache uses the shared store, and whether none does "
                "without.",
                "Degraded, each replica has only its own memory: fewer hits, all else works.",
                "Down or degraded: check Redis; the cache takes it back by itself.",
            ),
            Query("min(cache_backend_up)", "Redis"),
            Query("1 - max(cache_degraded)", "shared cache"),
            unit="none",
            height=8,
            width=8,
            limits=_RED_BELOW_ONE,
            mappings={0: ("away", "red"), 1: ("in use", "green")},
            alerts=("CacheDegraded",),
        ),
        lines(
            18,
            "Health checks",
            Why(
                "Health checks each second, by outcome.",
                "Without checks a dead backend stays in use.",
                "If they stop, the balancer's event loop is stuck.",
            ),
            Query(rate("balancer_health_checks_total", "outcome"), "{{outcome}}"),
            unit="ops",
            alerts=("HealthCheckStale",),
        ),
    ),
)

FLEET_HEALTH = Dashboard(
    uid="fleet-health",
    title="Fleet health",
    question="Which backends work, is the load spread well, and what is being cured?",
    group="fleet",
    refresh="30s",
    span="1h",
    sections=(_STATE, _LOAD, _FAULTS),
)
