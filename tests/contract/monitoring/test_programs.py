"""How Prometheus and its tools come to be there, and how tests find and run them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kit import prometheus as kit
from tests.kit.prometheus import (
    ROOT,
    derived,
    find_program,
    prometheus_config,
    running_alertmanager,
    running_prometheus,
)

INSTALL = ROOT / "tools" / "monitoring" / "install.sh"
# What the script needs of any system.
COMMON_TOOLS = (
    "cat",
    "cp",
    "cut",
    "head",
    "id",
    "mkdir",
    "mktemp",
    "mv",
    "rm",
    "sed",
    "sh",
    "tail",
)


def install(folder: Path, path: Path) -> subprocess.CompletedProcess[str]:
    for tool in COMMON_TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (path / tool).symlink_to(found)
    return subprocess.run(
        [INSTALL, folder],
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def add_program(folder: Path, name: str, script: str = "exit 0") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_what_is_on_path_is_left_alone(tmp_path):
    path = tmp_path / "path"
    for name in ("prometheus", "promtool", "prometheus-alertmanager", "amtool"):
        add_program(path, name)

    done = install(tmp_path / "folder", path)

    assert (done.returncode, done.stdout) == (0, "monitoring: on PATH already\n")
    assert not (tmp_path / "folder").exists()


def test_what_was_unpacked_before_is_left_alone(tmp_path):
    for name in ("prometheus", "promtool", "alertmanager", "amtool"):
        add_program(tmp_path / "folder" / "bin", name)
    (tmp_path / "path").mkdir()

    done = install(tmp_path / "folder", tmp_path / "path")

    assert done.returncode == 0, done.stderr
    assert "already" in done.stdout


def test_a_program_that_does_not_run_counts_as_missing(tmp_path):
    for name in ("prometheus", "promtool", "alertmanager"):
        add_program(tmp_path / "folder" / "bin", name)
    add_program(tmp_path / "folder" / "bin", "amtool", "exit 1")
    (tmp_path / "path").mkdir()

    done = install(tmp_path / "folder", tmp_path / "path")

    assert done.returncode == 1
    assert "no Debian or Ubuntu" in done.stderr
    assert "on PATH instead" in done.stderr


def test_packages_that_cannot_be_had_are_told_of_with_apts_own_words(tmp_path):
    add_program(tmp_path / "path", "apt-get", "echo 'E: no network here'; exit 100")
    add_program(tmp_path / "path", "dpkg-deb")

    done = install(tmp_path / "folder", tmp_path / "path")

    assert done.returncode == 1
    assert "E: no network here" in done.stderr
    assert "could not be downloaded" in done.stderr


def test_a_program_that_is_nowhere_is_named_with_its_cure(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(kit, "_UNPACKED", tmp_path)

    with pytest.raises(FileNotFoundError, match=r"amtool .*install\.sh"):
        find_program("amtool")


def test_programs_on_path_go_first_by_either_name(tmp_path, monkeypatch):
    add_program(tmp_path, "prometheus-alertmanager")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    assert find_program("alertmanager") == str(tmp_path / "prometheus-alertmanager")


def test_a_configuration_that_has_changed_is_not_derived_from():
    with pytest.raises(ValueError, match="there is no 'x'"):
        derived("a: b", {"x": "y"})


async def test_prometheus_scrapes_what_it_is_told_to(tmp_path):
    # Each service's address is free: nobody answers, which is what is asked.
    targets = {
        job: [f"127.0.0.1:{port}"] for port, job in enumerate(("rag", "cache", "balancer"), 1)
    }
    async with running_prometheus(prometheus_config(targets), tmp_path) as prometheus:
        samples = await prometheus.wait_for("count(up == 0) == 3")
        series = await prometheus.query('up{job="cache"}')

    assert samples[0]["value"][1] == "3"
    assert series[0]["metric"]["instance"] == "127.0.0.1:2"


async def test_a_server_that_refuses_its_configuration_is_told_of_with_its_last_words(tmp_path):
    with pytest.raises(RuntimeError, match="no_such_field"):
        async with running_prometheus("no_such_field: 1\n", tmp_path):
            pass
    with pytest.raises(RuntimeError, match="no_such_field"):
        async with running_alertmanager("no_such_field: 1\n", tmp_path):
            pass
