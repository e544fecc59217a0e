"""The rules of Prometheus: accepted by its own tools, and each alert tested so that it can fail."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kit.prometheus import DEPLOY, derived, run_tool
from tools.monitoring.rules import ALERTS, GROUPS, rule_file
from tools.monitoring.rules.cases import GROUP_CASES
from tools.monitoring.rules.emit import to_yaml
from tools.monitoring.rules.model import Alert, Group, Recording
from tools.monitoring.rules.promtool import rules_test

RULES = sorted((DEPLOY / "prometheus" / "rules").glob("*.yaml"))
TESTS = sorted((DEPLOY / "prometheus" / "tests").glob("*.yaml"))

_COMPARISON = re.compile(r"(==|!=|>=|<=|>|<) (\d+(?:\.\d+)?)")
_REVERSED = {">": "<", "<": ">", "==": "!="}


def test_promtool_accepts_the_configuration():
    done = run_tool("promtool", "check", "config", DEPLOY / "prometheus" / "prometheus.yaml")

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULES)} rule files found" in done.stdout


def test_promtool_would_refuse_a_configuration_with_a_mistake(tmp_path):
    config = (DEPLOY / "prometheus" / "prometheus.yaml").read_text()
    wrong = tmp_path / "prometheus.yaml"
    wrong.write_text(derived(config, {"evaluation_interval": "evaluations_interval"}))

    assert run_tool("promtool", "check", "config", wrong).returncode != 0


def test_promtool_accepts_the_rules_without_a_remark():
    done = run_tool("promtool", "check", "rules", "--lint=all", "--lint-fatal", *RULES)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(180)
def test_every_alert_fires_beyond_its_limit_and_is_quiet_within():
    done = run_tool("promtool", "test", "rules", *TESTS)

    assert done.returncode == 0, done.stdout + done.stderr


def test_no_file_of_rules_or_tests_is_left_over_from_another_time():
    names = [group.name for group in GROUPS]

    assert [path.stem for path in RULES] == sorted(names)
    assert [path.stem for path in TESTS] == sorted(names)


def test_every_alert_has_cases():
    tested = {case.alert for cases in GROUP_CASES.values() for case in cases}

    assert {alert.name for alert in ALERTS} == tested


def test_names_of_alerts_are_unique():
    assert len({alert.name for alert in ALERTS}) == len(ALERTS)


def test_alerts_use_all_that_is_recorded_and_nothing_else():
    used = {name for alert in ALERTS for name in re.findall(r"job:\w+:\w+", alert.expr)}
    recorded = {
        rule.name for group in GROUPS for rule in group.rules if isinstance(rule, Recording)
    }

    assert used == recorded


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", [alert.name for alert in ALERTS])
def test_tests_notice_each_change_of_an_alert(name, tmp_path):
    group, alert = next(
        (group, rule) for group in GROUPS for rule in group.rules if rule.name == name
    )
    assert isinstance(alert, Alert)
    cases = [case for case in GROUP_CASES[group.name] if case.alert == name]
    original = Group(group.name, (alert,))
    test = to_yaml(rules_test(original, cases))
    changes = {"no change": alert, **dict(_changed(alert))}

    files = []
    for number, changed in enumerate(changes.values()):
        folder = tmp_path / str(number)
        (folder / "rules").mkdir(parents=True)
        (folder / "tests").mkdir()
        (folder / "rules" / f"{group.name}.yaml").write_text(
            rule_file(Group(group.name, (changed,)))
        )
        files.append(folder / "tests" / f"{group.name}.yaml")
        files[-1].write_text(test)
    done = run_tool("promtool", "test", "rules", *files)

    # What fails is told on the other output.
    _, *outcomes = done.stdout.split("Unit Testing: ")
    assert len(outcomes) == len(changes) >= 2, done.stdout + done.stderr
    unnoticed = [
        change for change, outcome in zip(changes, outcomes, strict=True) if "SUCCESS" in outcome
    ]
    assert unnoticed == ["no change"]


def _changed(alert: Alert) -> Iterator[tuple[str, Alert]]:
    """Yields alerts with one thing changed, by what it is: each limit, each sign, the time."""
    comparisons = list(_COMPARISON.finditer(alert.expr))
    for match in comparisons:
        for text in _other_comparisons(match[1], float(match[2])):
            expr = f"{alert.expr[: match.start()]}{text}{alert.expr[match.end() :]}"
            yield f"{match[0]} is {text} at {match.start()}", replace(alert, expr=expr)
    if not comparisons:
        yield "never", replace(alert, expr=f"({alert.expr}) > 1")
    if alert.minutes:
        yield "at once", replace(alert, minutes=0)
        yield "after twice the time", replace(alert, minutes=2 * alert.minutes)
    if "absent(" in alert.expr:
        yield "always", replace(alert, expr=alert.expr.replace("absent(", "absent(no_such_"))


def _other_comparisons(sign: str, limit: float) -> Iterator[str]:
    yield f"{_REVERSED[sign]} {limit:g}"
    if limit:
        yield f"{sign} {1.25 * limit:g}"
        yield f"{sign} {0.75 * limit:g}"
    elif sign == ">":
        yield ">= 0"


def test_paths_below_the_rules_are_those_of_the_stack():
    """Prometheus reads them below its configuration, wherever that is mounted."""
    config = (DEPLOY / "prometheus" / "prometheus.yaml").read_text()

    assert not [part for part in re.findall(r"[\w./*-]+\.yaml", config) if Path(part).is_absolute()]
