"""Nothing is raised within `except*`.

Early releases of Python 3.11, Debian 12's among them, put what is raised there into a group again,
later ones do not: who waits for the exception itself would miss it.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = [
    path
    for folder in ("services", "pannier", "deploy", "tools")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "except*" in path.read_text()
]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_caught_from_a_group_is_raised_after_it(path) -> None:
    raised = [
        node.lineno
        for group in ast.walk(ast.parse(path.read_text()))
        if isinstance(group, ast.TryStar)
        for handler in group.handlers
        for node in ast.walk(handler)
        if isinstance(node, ast.Raise)
    ]
    assert raised == []
