"""The runbook has a heading for each alert, and what it tells people to type exists."""

import re

import pytest
import typer.main
from typer.core import TyperGroup

from pannier.commands.application import application
from pannier.commands.listing_group import ListingGroup
from tests.kit.prometheus import ROOT
from tools.monitoring import dashboards, rules, thresholds
from tools.monitoring.dashboards.promql import parse
from tools.monitoring.rules import ALERTS

TEXT = (ROOT / "docs" / "runbook.md").read_text()
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))
PARTS = ("Means", "Users notice", "Look at", "Causes and cures", "False alarm")


def test_each_alert_has_a_heading_and_no_heading_is_left_over():
    names = [alert.name for alert in ALERTS]

    assert sorted(SECTIONS) == sorted(names)
    assert len(re.findall(r"^## \w+$", TEXT, re.MULTILINE)) == len(names)


@pytest.mark.parametrize("name", sorted(SECTIONS))
def test_each_heading_says_all_that_is_needed(name):
    section = SECTIONS[name]

    assert re.findall(r"^\*\*([\w ]+)\.\*\*", section, re.MULTILINE) == list(PARTS)
    assert re.search(r"^```(sh|promql)\n", section, re.MULTILINE)
    assert re.search(r"^- ", section, re.MULTILINE)


def test_links_within_the_documents_lead_somewhere():
    headings = {
        re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        if target.startswith("#"):
            assert target[1:] in headings, target
        else:
            assert (ROOT / "docs" / target).exists(), target


def test_every_runbook_link_of_an_alert_is_a_heading():
    for alert in ALERTS:
        path, _, anchor = str(alert.annotations["runbook_url"]).partition("#")
        assert (ROOT / path).samefile(ROOT / "docs" / "runbook.md")
        assert anchor in {name.lower() for name in SECTIONS}


def test_queries_can_be_read():
    queries = re.findall(r"^```promql\n(.*?)\n```$", TEXT, re.MULTILINE | re.DOTALL)

    assert len(queries) > len(ALERTS)
    for query in queries:
        parse(query)


def test_commands_exist_with_their_options():
    """A command that was renamed would be found missing in the middle of the night."""
    blocks = re.findall(r"^```sh\n(.*?)\n```$", TEXT, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    spans = [" ".join(span.split()) for span in re.findall(r"`(pannier [^`]+)`", TEXT)]
    typed = [line for line in [*lines, *spans] if line.startswith("pannier ")]

    assert len(typed) > len(ALERTS)
    for line in typed:
        command, words = typer.main.get_command(application), line.split("#")[0].split()[1:]
        while words and isinstance(command, TyperGroup) and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        if isinstance(command, TyperGroup):
            # Some list what they are about without a command of theirs.
            assert isinstance(command, ListingGroup), line
            assert not words, line
            continue
        known = {option for each in command.params for option in each.opts}
        assert {word for word in words if word.startswith("-")} <= known, line


def test_reasons_exist():
    known = (ROOT / "docs" / "errors.md").read_text() + (ROOT / "docs" / "answering.md").read_text()
    for reason in set(re.findall(r"`([A-Z]{3,}_[A-Z_]+)`", TEXT)):
        if not reason.startswith("PANNIER"):
            assert reason in known or hasattr(thresholds, reason), reason


def test_the_table_follows_the_alerts():
    """`make monitoring-check` compares it; this shows that it would see a difference."""
    assert rules.render(ROOT)["docs/runbook.md"] == TEXT
    for alert in ALERTS:
        assert f"| [{alert.name}](#{alert.name.lower()}) | {alert.limit} |" in TEXT


def test_a_runbook_without_a_place_for_the_table_is_refused(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "runbook.md").write_text("# Runbook\n")

    with pytest.raises(ValueError, match="lacks"):
        rules.render(tmp_path)


def test_alerts_and_panels_name_each_other():
    panels = {
        (board.uid, panel.number): panel
        for board in dashboards.ALL
        for section in board.sections
        for panel in section.panels
    }
    for alert in ALERTS:
        panel = panels[alert.panel.dashboard, alert.panel.number]
        assert alert.name in panel.alerts, (alert.name, panel.title)
    named = {name for panel in panels.values() for name in panel.alerts}
    assert named <= {alert.name for alert in ALERTS}
