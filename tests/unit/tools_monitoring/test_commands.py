"""The commands write, compare and wrap."""

import json
import shutil
from pathlib import Path

import pytest

from tools.monitoring.__main__ import main
from tools.monitoring.dashboards.wrap import main as wrap

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def written(tmp_path):
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs/runbook.md", tmp_path / "docs")
    assert main([], root=tmp_path) == 0
    return tmp_path


def test_what_was_written_passes_the_check(written):
    assert main(["--check"], root=written) == 0


def test_a_file_that_was_edited_is_reported(written, capsys):
    path = written / "dashboards/traces.json"
    path.write_text(path.read_text().replace("Slow questions", "Fast questions"))
    assert main(["--check"], root=written) == 1
    assert "traces.json differs" in capsys.readouterr().err


def test_a_missing_file_and_one_without_a_source_are_reported(written, capsys):
    (written / "dashboards/traces.json").rename(written / "dashboards/other.json")
    assert main(["--check"], root=written) == 1
    reported = capsys.readouterr().err
    assert "traces.json is missing" in reported
    assert "other.json has no source" in reported


def test_the_check_writes_nothing(tmp_path):
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs/runbook.md", tmp_path / "docs")
    assert main(["--check"], root=tmp_path) == 1
    assert not (tmp_path / "dashboards").exists()


def test_a_wrapped_dashboard_is_what_the_http_api_takes(capsys):
    path = ROOT / "dashboards/traces.json"
    assert wrap([str(path), "--folder-uid", "pannier"]) == 0
    request = json.loads(capsys.readouterr().out)
    assert request == {
        "dashboard": json.loads(path.read_text()),
        "overwrite": True,
        "folderUid": "pannier",
    }
