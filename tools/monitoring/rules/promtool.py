"""Turns cases of alerts into tests for `promtool test rules`."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tools.monitoring import thresholds
from tools.monitoring.rules.emit import Value
from tools.monitoring.rules.model import Alert, Group

__all__ = ["STEP_SECONDS", "Case", "Levels", "rules_test"]

STEP_SECONDS = thresholds.SCRAPE_INTERVAL_SECONDS
"""Time between two samples, and between two evaluations."""

_COUNTER = re.compile(r"\w+_(?:total|bucket|sum|count)\b")
_TIMESTAMP = re.compile(r"\w+_timestamp_seconds\b")
_PLACEHOLDER = re.compile(r"\{\{ \$(value|labels\.(\w+))[^}]*\}\}")
_STEPS_PER_MINUTE = 60 // STEP_SECONDS
# How near the moment that matters an alert is looked at, in steps.
_NEAR = 2
# How much later it must still be quiet.
_LONG_AFTER = 20

Levels = Mapping[str, float | None]
"""Series with their growth for each step if they are counters, their age in seconds if they are
timestamps, or else their value; with None they have no samples."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """A state in which an alert is quiet.

    Attributes:
        levels: The series.
        before: The same series for `before_steps` of the case before that.
        at: A step at which it is looked at as well; None for no other than those of each state.
    """

    levels: Levels
    before: Levels = field(default_factory=dict)
    at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What an alert must fire at, and what it must be quiet at.

    Attributes:
        alert: Name of the alert.
        above: Series just beyond the limit.
        below: The same series at the limit, or just within; empty if it has none.
        before: The same series for `before_steps` before `above` or `below`.
        before_steps: How many steps that takes.
        quiet: Other states to be quiet in, by what they show.
        labels: Labels of the alert besides its own.
        value: `{{ $value }}` as the description shows it.
        begins: Steps until the condition holds, of a range that has to fill first.
        ends: Steps until the condition holds no more, when the series are within the limit again.
    """

    alert: str
    above: Levels
    below: Levels
    before: Levels = field(default_factory=dict)
    before_steps: int = 0
    quiet: Mapping[str, Quiet] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    value: str = ""
    begins: int = 1
    ends: int = 2


def rules_test(group: Group, cases: Iterable[Case]) -> dict[str, Value]:
    """Returns a file of tests.

    Each case is a test that the alert fires beyond its limit, after its time and no sooner, and
    ends; one that it is quiet at its limit; one for each other state; and one without traffic.

    Args:
        group: The alerts.
        cases: At least one for each of them.
    """
    alerts = {rule.name: rule for rule in group.rules if isinstance(rule, Alert)}
    tests: list[Value] = []
    for case in cases:
        alert = alerts[case.alert]
        tests.append(_fires(alert, case))
        tests += [
            _is_quiet(alert, case, name, state) for name, state in _quiet_states(case).items()
        ]
    return {
        "rule_files": [f"../rules/{group.name}.yaml"],
        "evaluation_interval": f"{STEP_SECONDS}s",
        "tests": tests,
    }


def _quiet_states(case: Case) -> dict[str, Quiet]:
    states = {"just within its limit": Quiet(case.below, case.before)} if case.below else {}
    states |= case.quiet
    counters: Levels = {series: 0.0 for series in case.below if _COUNTER.match(series)}
    if counters:
        states["without traffic"] = Quiet({**case.below, **counters})
    return states


def _fires(alert: Alert, case: Case) -> Value:
    start = case.before_steps + case.begins
    fires = start + alert.minutes * _STEPS_PER_MINUTE
    turns = fires + 2 * _NEAR
    ends = turns + case.ends + alert.kept_minutes * _STEPS_PER_MINUTE + _NEAR
    phases = [
        (case.before, case.before_steps),
        (case.above, turns - case.before_steps),
        (case.below, ends - turns),
    ]
    checks: list[Value] = []
    if alert.minutes:
        checks.append(_check(alert, fires - _NEAR, []))
    checks.append(_check(alert, fires + _NEAR, [_expected(alert, case)]))
    if case.below:
        checks.append(_check(alert, ends, []))
    test = _test(f"{alert.name} fires beyond its limit, and ends", phases, checks)
    if alert.minutes:
        # Silence has two reasons: nothing is wrong, or not for long enough.
        pending = f'count(ALERTS{{alertname="{alert.name}",alertstate="pending"}})'
        sample: Value = {"labels": "{}", "value": 1}
        test["promql_expr_test"] = [
            {"expr": pending, "eval_time": _time(fires - _NEAR), "exp_samples": [sample]}
        ]
    return test


def _is_quiet(alert: Alert, case: Case, name: str, state: Quiet) -> Value:
    fires = case.before_steps + case.begins + alert.minutes * _STEPS_PER_MINUTE
    last = fires + _LONG_AFTER
    before_steps = case.before_steps if state.before else 0
    phases = [(state.before, before_steps), (state.levels, last - before_steps)]
    steps = [fires + _NEAR, last] if state.at is None else [state.at, fires + _NEAR, last]
    checks = [_check(alert, each, []) for each in steps]
    return _test(f"{alert.name} is quiet {name}", phases, checks)


def _test(
    name: str, phases: Sequence[tuple[Levels, int]], checks: Sequence[Value]
) -> dict[str, Value]:
    lasting = [(levels, step_count) for levels, step_count in phases if levels]
    series: list[Value] = [
        {"series": each, "values": _values(each, lasting)} for each in lasting[0][0]
    ]
    return {
        "name": name,
        "interval": f"{STEP_SECONDS}s",
        "input_series": series,
        "alert_rule_test": checks,
    }


def _values(series: str, phases: Sequence[tuple[Levels, int]]) -> str:
    """Returns the samples of a series, from that at 0 on, in promtool's notation."""
    parts: list[str] = []
    step = total = 0.0
    for levels, step_count in phases:
        level = levels[series]
        # The first phase has the sample at 0 too; `x` tells how many samples follow the first.
        more = step_count - 1 if parts else step_count
        if level is None:
            parts.append(f"_x{more + 1}")
        elif _COUNTER.match(series):
            first = total + level if parts else total
            parts.append(f"{first:.10g}+{level:.10g}x{more}")
            total = first + level * more
        elif _TIMESTAMP.match(series):
            parts.append(f"{step * STEP_SECONDS - level:.10g}+{STEP_SECONDS}x{more}")
        else:
            parts.append(f"{level:.10g}x{more}")
        step += more + 1
    return " ".join(parts)


def _check(alert: Alert, step: int, expected: Sequence[Value]) -> Value:
    return {"eval_time": _time(step), "alertname": alert.name, "exp_alerts": expected}


def _expected(alert: Alert, case: Case) -> Value:
    def filled(template: Value) -> str:
        return _PLACEHOLDER.sub(
            lambda found: case.labels[found[2]] if found[2] else case.value, str(template)
        )

    return {
        "exp_labels": {
            **{name: filled(value) for name, value in alert.labels.items()},
            **case.labels,
        },
        "exp_annotations": {name: filled(value) for name, value in alert.annotations.items()},
    }


def _time(step: int) -> str:
    return f"{step * STEP_SECONDS}s"
