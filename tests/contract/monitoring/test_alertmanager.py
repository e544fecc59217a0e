"""Who is told of which alert, as amtool reads it from the configuration of Alertmanager."""

import re

import pytest

from tests.kit.prometheus import DEPLOY, derived, run_tool
from tools.monitoring.rules import ALERTS

CONFIG = DEPLOY / "alertmanager" / "alertmanager.yaml"

# Who is told, and who was to be told according to those who asked for the first twelve.
RECEIVERS = {
    "HighErrorRate": "slack,pagerduty",
    "HighLatency": "slack",
    "VeryHighLatency": "pagerduty",
    "LowCacheHitRate": "slack",
    "CacheNearCapacity": "slack",
    "HighCacheEvictionRate": "slack",
    "HighDailyCost": "email",
    "SuddenCostSpike": "pagerduty,email",
    "LowQualityScore": "slack",
    "HighDegradationRate": "slack",
    "ToolFailureRateHigh": "slack",
    "RAGFailureRateHigh": "pagerduty",
    "CacheDegraded": "slack",
    "FalseHitBudget": "slack",
    "IndexInvalidationsPending": "slack",
    "NoHealthyBackend": "slack,pagerduty",
    "BackendDown": "slack",
    "HealthCheckStale": "slack",
    "BackendStalled": "slack",
    "TargetDown": "slack,pagerduty",
    "RagMetricsAbsent": "slack,pagerduty",
    "CacheMetricsAbsent": "slack,pagerduty",
    "BalancerMetricsAbsent": "slack,pagerduty",
    "EventLoopLag": "slack",
    "SpansDropped": "slack",
    "Watchdog": "watchdog",
    "ErrorBudgetBurnFast": "pagerduty",
    "ErrorBudgetBurnSlow": "slack",
    "LatencyBudgetBurnFast": "pagerduty",
    "LatencyBudgetBurnSlow": "slack",
}


def test_amtool_accepts_the_configuration_and_its_templates():
    done = run_tool("amtool", "check-config", CONFIG)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 templates" in done.stdout


def test_amtool_would_refuse_a_template_with_a_mistake(tmp_path):
    templates = (DEPLOY / "alertmanager" / "templates" / "pannier.tmpl").read_text()
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "pannier.tmpl").write_text(derived(templates, {"{{ end }}": ""}))
    (tmp_path / "alertmanager.yaml").write_text(CONFIG.read_text())

    assert run_tool("amtool", "check-config", tmp_path / "alertmanager.yaml").returncode != 0


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_every_alert_reaches_those_it_is_meant_for(alert):
    labels = [
        f"{name}={value}" for name, value in {"alertname": alert.name, **alert.labels}.items()
    ]
    done = run_tool("amtool", "config", "routes", "test", f"--config.file={CONFIG}", *labels)

    assert done.stdout.strip() == RECEIVERS[alert.name], done.stderr


def test_what_has_no_channel_is_sent_to_nobody():
    done = run_tool("amtool", "config", "routes", "test", f"--config.file={CONFIG}", "alertname=X")

    assert done.stdout.strip() == "nobody", done.stderr


def test_receivers_are_expected_of_every_alert_and_of_no_other():
    assert set(RECEIVERS) == {alert.name for alert in ALERTS}


def test_what_is_held_back_is_an_alert_and_so_is_the_reason():
    names = {alert.name for alert in ALERTS}
    sources, targets = (
        re.findall(rf"{side}_matchers: \['alertname(=~|!~|=)\"(.+)\"'\]", CONFIG.read_text())
        for side in ("source", "target")
    )

    assert len(sources) == len(targets) == CONFIG.read_text().count("source_matchers")
    for sign, pattern in [*sources, *targets]:
        for part in pattern.split("|"):
            assert any(re.fullmatch(part, name) for name in names), f"{sign} {part}"


def test_a_cause_is_never_held_back_by_what_follows_from_it():
    """Alertmanager looks at each rule alone: two that hold back each other would silence both."""
    rules = re.findall(
        r"source_matchers: \['alertname=~?\"(.+)\"'\]\n"
        r" +target_matchers: \['alertname(=~|!~|=)\"(.+)\"'\]",
        CONFIG.read_text(),
    )
    names = [alert.name for alert in ALERTS]
    held = {
        (source, target)
        for sources, sign, targets in rules
        for source in names
        for target in names
        if re.fullmatch(sources, source) and bool(re.fullmatch(targets, target)) != (sign == "!~")
    }

    assert ("TargetDown", "RagMetricsAbsent") in held
    assert ("RagMetricsAbsent", "HighErrorRate") in held
    assert not [pair for pair in held if pair[::-1] in held]


def test_secrets_are_files():
    text = CONFIG.read_text()

    assert re.findall(r"^ *(\w*(?:url|password|key|token|secret)): ", text, re.MULTILINE) == []
    assert set(re.findall(r"_file: (\S+)", text)) == {
        "/run/secrets/slack_api_url",
        "/run/secrets/smtp_password",
        "/run/secrets/pagerduty_routing_key",
    }
