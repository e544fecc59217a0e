"""Scenario files: what they say, what is wrong with them, and that each alert has one."""

import re
from pathlib import Path

import pytest

from pannier.commands.formatting import format_seconds
from pannier.commands.load_options import list_scenarios, read_questions
from pannier.load.faults import KINDS, standin_rules
from pannier.load.scenario import BadScenario, parse_scenario
from tools.monitoring.rules import ALERTS as ALL_ALERTS

ROOT = Path(__file__).parents[3]

SMALL = """
name = "small"
about = "Something."
shows = ["HighErrorRate"]
fires_after = "1m"

[traffic]
rate = 4
modes = { rag = 2, direct = 1 }

[[phases]]
name = "well"
duration = "90s"

[[phases]]
name = "ill"
duration = 30
rate = 1
end_rate = 3
cache = "bypass"
faults = [
    { kind = "status", status = 503, path = "/api/chat", backends = 2, probability = 0.5 },
    { kind = "pause", process = "redis" },
]
"""


def problems_of(text):
    with pytest.raises(BadScenario) as error:
        parse_scenario(text)
    return error.value.problems


def test_a_scenario_is_read_with_what_its_phases_have_in_common():
    scenario = parse_scenario(SMALL)
    well, ill = scenario.phases
    assert (scenario.seconds, scenario.fires_after_seconds) == (120, 60)
    assert (well.stage.start_rate, well.stage.end_rate, well.mix.modes["rag"]) == (4, 4, 2)
    assert (ill.stage.start_rate, ill.stage.end_rate, ill.cache_policy) == (1, 3, "bypass")
    status, pause = ill.faults
    assert (status.options["status"], status.backends) == (503, 2)
    assert status.limits == {"path": "/api/chat", "probability": 0.5}
    assert (pause.process, scenario.processes, scenario.needs_standins) == (
        "redis",
        ("redis",),
        True,
    )


def test_durations_scale_and_rates_do_not():
    scaled = parse_scenario(SMALL).scaled(0.1)
    assert (scaled.seconds, scaled.fires_after_seconds) == (pytest.approx(12), 6)
    assert scaled.phases[1].stage.end_rate == 3


def test_all_that_is_wrong_is_said_at_once():
    found = problems_of(
        """
        nmae = "x"
        shows = ["A"]
        [needs]
        prices = "yes"
        [[phases]]
        name = "p"
        duration = "soon"
        rate = -1
        modes = { fast = 1 }
        repeat_ratio = 0.8
        paraphrase_ratio = 0.8
        tenants = { a = 0 }
        cache = "maybe"
        colour = "red"
        faults = [{ kind = "slow", seconds = "long" }, { kind = "earthquake" }, { kind = "pause" }]
        """
    )
    for expected in (
        "nmae: there is no such key",
        "name: is missing",
        "about: is missing",
        "fires_after: say when",
        "needs.prices: must be true or false",
        "phases[0].duration: must be a duration",
        "phases[0].rate: must be from 0",
        "phases[0].modes: there is no fast",
        "phases[0].repeat_ratio: is with paraphrase_ratio more than 1",
        "phases[0].tenants: must be weights",
        "phases[0].cache: must be one of",
        "phases[0].colour: there is no such key",
        "phases[0].faults[0].seconds: must be a number",
        "phases[0].faults[1].kind: there is no earthquake",
        "phases[0].faults[2].process: is missing",
    ):
        assert any(each.startswith(expected) for each in found), (expected, found)
    assert len(found) == 15


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("= 3", "is no TOML"),
        ('name = "x"\nabout = "y"\nphases = []', "phases: there must be at least one"),
        ('name = ""\nabout = "y"', "name: must not be empty"),
        (SMALL.replace("rate = 4", "window = inf"), "traffic.window: must be a whole number"),
        (SMALL.replace("status = 503", "status = 200"), "phases[1].faults[0].status: must be from"),
        (SMALL.replace("status = 503", "status = 500.5"), "phases[1].faults[0].status: must be a"),
        (
            SMALL.replace("backends = 2", "count = inf"),
            "phases[1].faults[0].count: must be a whole",
        ),
        (SMALL.replace('"redis"', '""'), "phases[1].faults[1].process: must not be empty"),
        (SMALL.replace("rate = 4", 'tenants = { "a\\nb" = 1 }'), "traffic.tenants: 'a\\nb' is no"),
        (SMALL.replace('"1m"', '"1h"'), "fires_after: is after the end"),
        (SMALL.replace('"pause"', '"stutter", seconds = 5, every = 1'), "phases[1].faults[1].sec"),
        (
            SMALL.replace("[traffic]", "[needs]\ncache_limit_bytes = inf"),
            "needs.cache_limit_bytes: ",
        ),
        (
            SMALL.replace("[traffic]", "[[needs.standins]]\nport = 0"),
            "needs.standins[0].port: must",
        ),
        ('name = "x"\nabout = "y"', "phases: there must be at least one"),
        ('name = "x"\nabout = "y"\nphases = 3', "phases: must be a list of tables"),
        ('name = "x"\nabout = "y"\nphases = [3]', "phases[0]: must be a table"),
        (
            SMALL.replace('"90s"', "inf"),
            "phases[0].duration: must be longer than 0, and at most 30 days",
        ),
        (SMALL.replace("rag = 2", "rag = inf"), "traffic.modes: must be weights"),
        (SMALL.replace("[traffic]", "[[traffic]]"), "traffic: must be a table"),
    ],
)
def test_what_is_no_scenario_is_refused(text, problem):
    assert any(each.startswith(problem) for each in problems_of(text))


def test_what_all_phases_have_in_common_is_complained_about_once():
    found = problems_of(SMALL.replace("rate = 4", "rate = -4\ncolour = 1"))
    assert found == (
        "traffic.rate: must be from 0 to 100000",
        "traffic.colour: there is no such key",
    )


def test_every_scenario_that_comes_along_can_be_read_and_its_name_is_that_of_its_file():
    scenarios = list_scenarios()
    assert len(scenarios) > 20
    for scenario, path in scenarios:
        assert scenario.name == path.stem
        assert scenario.fires_after_seconds <= scenario.seconds
        for phase in scenario.phases:
            assert read_questions(path.parent / phase.questions if phase.questions else None)


def test_there_is_a_scenario_for_each_alert_and_the_runbook_names_one():
    scenarios = {scenario.name: scenario for scenario, _ in list_scenarios()}
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", runbook, re.MULTILINE | re.DOTALL))
    # It always fires.
    for name in {each.name for each in ALL_ALERTS} - {"Watchdog"}:
        (shown_by,) = re.findall(
            r"^Show it: `pannier load --scenario ([\w-]+)`", sections[name], re.M
        )
        assert name in scenarios[shown_by].shows, name


def test_every_kind_of_fault_is_used_by_a_scenario():
    used = {fault.kind for scenario, _ in list_scenarios() for fault in scenario.faults}
    unused = {"slowdown", "error-line", "absent-model", "wrong-digest", "wrong-dimensions"}
    assert used >= set(KINDS) - unused


def test_every_order_to_a_stand_in_ends_by_itself():
    for scenario, _ in list_scenarios():
        for fault in scenario.faults:
            if not fault.process:
                rules = standin_rules(fault, for_seconds=9.0)
                assert all(each.get("for_seconds") == 9.0 or "kill_child" in each for each in rules)


def test_alerts_that_are_shown_are_alerts_that_there_are():
    known = {each.name for each in ALL_ALERTS}
    for scenario, _ in list_scenarios():
        assert set(scenario.shows) <= known, scenario.name


def test_the_document_names_each_scenario_of_each_alert_and_each_kind_of_fault():
    text = (ROOT / "docs" / "load.md").read_text()
    for scenario, _ in list_scenarios():
        after = format_seconds(scenario.fires_after_seconds)
        for alert in scenario.shows:
            assert f"| {alert} | `{scenario.name}` | {after} |" in text
        for name, value in scenario.settings.items():
            assert f"`{name}={value}`" in text
    for name, kind in KINDS.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        assert row.endswith(f"| {kind.about} |")
        assert all(f"`{option}`" in row for option in kind.defaults)


def test_the_document_says_what_was_seen_of_each_scenario_and_each_alert_by_name():
    text = (ROOT / "docs" / "load.md").read_text()
    _, _, after = text.partition("\n### What was seen\n")
    seen = re.findall(r"^\| (\w+) \| `([\w-]+)` \|", after.partition("\n### ")[0], re.MULTILINE)
    shown = {(alert, each.name) for each, _ in list_scenarios() for alert in each.shows}
    assert seen == sorted(shown)


def test_settings_that_scenarios_want_are_settings_that_there_are():
    known = (ROOT / "docs" / "configuration.md").read_text()
    for scenario, _ in list_scenarios():
        assert all(f"`{name}`" in known for name in scenario.settings)
