"""Rules about the tree that no other tool checks."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path
    for folder in ("pannier", "services", "deploy", "tools")
    for path in (ROOT / folder).rglob("*.py")
    if "_pb2" not in path.name
)
SERVICES = ("balancer", "cache", "rag")
LONGEST_MODULE = 420


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_stays_small_enough_to_read(path):
    assert len(path.read_text().splitlines()) <= LONGEST_MODULE


@pytest.mark.parametrize("service", SERVICES)
def test_every_pure_module_has_its_tests(service):
    tests = {path.stem for path in (ROOT / "tests/unit" / service).rglob("test_*.py")}
    missing = [
        path.stem
        for path in (ROOT / "services" / service / "core").rglob("*.py")
        if path.stem not in ("__init__", "errors") and f"test_{path.stem}" not in tests
        if any(isinstance(node, ast.FunctionDef) for node in ast.parse(path.read_text()).body)
    ]
    assert missing == []


def test_the_readme_names_commands_that_exist():
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z][a-z0-9-]*)", readme))
    assert named
    assert named <= targets


def test_ci_runs_what_the_readme_says():
    assert "make test" in (ROOT / ".ci/run").read_text()
    assert "make test" in (ROOT / "README.md").read_text()


def test_every_target_has_a_help_text():
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*?)\n\n", makefile, re.MULTILINE | re.DOTALL)[1]
    for target in phony.replace("\\\n", " ").split():
        assert re.search(rf"^{target}:.*## \S", makefile, re.MULTILINE), target


def test_links_between_documents_lead_somewhere():
    for document in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text()):
            assert (document.parent / link).exists(), f"{document.name}: {link}"
