"""Rules in which time passes faster: durations are divided, and nothing else changes."""

import re
from pathlib import Path

import pytest
import yaml

from tests.monitoring.compression import compressed_expression, compressed_rules, seconds_of

RULES = sorted((Path(__file__).parents[3] / "deploy" / "prometheus" / "rules").glob("*.yaml"))


@pytest.mark.parametrize(
    ("expression", "compressed"),
    [
        ("rate(a_total[5m]) > 300", "rate(a_total[10000ms]) > 300"),
        ("rate(a[1h] offset 1h)", "rate(a[120000ms] offset 120000ms)"),
        ("a offset -5m", "a offset -10000ms"),
        ("max_over_time(a[1h30m:5m])", "max_over_time(a[180000ms:10000ms])"),
        ("max_over_time(a[1h:])", "max_over_time(a[120000ms:])"),
        # Too short for a rate of samples that come each second.
        ("rate(a[30s])", "rate(a[4000ms])"),
        # Names, labels, thresholds and remarks are none of our business.
        ("job:errors:ratio_rate5m > 0.1", "job:errors:ratio_rate5m > 0.1"),
        ('a{le=~"5([.]0)?", text="[5m] offset 1h"}', 'a{le=~"5([.]0)?", text="[5m] offset 1h"}'),
        ("a{b='[5m]\\'[5m]'}", "a{b='[5m]\\'[5m]'}"),
        ("a{b=`[5m]`} # [5m]\n> 90", "a{b=`[5m]`} # [5m]\n> 90"),
        ("time() - a * 86400 > 90", "time() - a * 86400 > 90"),
        ("offset_total", "offset_total"),
    ],
)
def test_only_ranges_and_offsets_are_divided(expression, compressed):
    assert compressed_expression(expression, 30.0) == compressed


@pytest.mark.parametrize("path", RULES, ids=lambda each: each.stem)
def test_the_rules_that_there_are_differ_in_nothing_but_durations(path):
    def bare(text):
        document = yaml.safe_load(text)
        for group in document["groups"]:
            for rule in group["rules"]:
                rule["expr"] = re.sub(r"\[[^\]]+\]|offset \w+", "", rule["expr"])
                rule.pop("for", None)
                rule.pop("keep_firing_for", None)
        return document

    text = path.read_text()
    compressed = compressed_rules(text, 24.0)
    assert bare(compressed) == bare(text)
    assert compressed_rules(text, 24.0) != compressed_rules(text, 12.0)
    waits = {
        rule["alert"]: seconds_of(rule["for"])
        for group in yaml.safe_load(text)["groups"]
        for rule in group["rules"]
        if "for" in rule
    }
    for group in yaml.safe_load(compressed)["groups"]:
        for rule in group["rules"]:
            if "for" in rule:
                assert seconds_of(rule["for"]) == pytest.approx(waits[rule["alert"]] / 24, abs=1e-3)


@pytest.mark.parametrize("text", ["", "5", "m", "5 m", "1.5h", "-5m", "5y"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="is no duration"):
        seconds_of(text)
