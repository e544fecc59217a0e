"""What is committed is what the sources say."""

import json
from pathlib import Path

import pytest

from tools.monitoring import dashboards

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("path", "text"),
    dashboards.render().items(),
    ids=lambda value: value.stem if isinstance(value, Path) else "",
)
def test_a_dashboard_is_as_its_source_says(path, text):
    assert (ROOT / path).read_text() == text


def test_every_dashboard_has_a_source():
    committed = {path.name for path in (ROOT / "dashboards").glob("*.json")}
    assert committed == {path.name for path in dashboards.render()}


def test_the_readme_names_every_dashboard_with_its_panels_and_its_picture():
    readme = (ROOT / "dashboards/README.md").read_text()
    for path in (ROOT / "dashboards").glob("*.json"):
        dashboard = json.loads(path.read_text())
        assert dashboard["title"] in readme
        assert f"({path.name})" in readme
        assert f"(images/{path.stem}.png)" in readme
        assert dashboard["description"] in readme
