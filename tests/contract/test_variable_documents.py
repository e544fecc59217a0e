"""No document and no help text names a variable that nothing reads."""

import re
from pathlib import Path

import pytest

from services.balancer.settings import BalancerSettings
from services.cache.settings import CacheSettings
from services.common.settings import describe
from services.rag.settings import RagSettings

ROOT = Path(__file__).resolve().parents[2]
PLACES = sorted(
    path
    for folder, ending in (
        ("docs", "md"),
        ("dashboards", "md"),
        ("deploy", "md"),
        ("deploy/scenarios", "toml"),
        ("pannier", "py"),
        ("tools/monitoring", "py"),
    )
    for path in (ROOT / folder).rglob(f"*.{ending}")
    if "_pb2" not in path.name
)
SETTINGS = {
    each.variable
    for settings, prefix in (
        (BalancerSettings, "PANNIER_BALANCER_"),
        (CacheSettings, "PANNIER_CACHE_"),
        (RagSettings, "PANNIER_RAG_"),
    )
    for each in describe(settings, prefix=prefix)
}
# What commands read themselves; `<SERVICE>` and a part in braces stand for a name.
OF_COMMANDS = {"PANNIER_HOME", "PANNIER_TENANT", "PANNIER_TRACE_URL"} | {
    f"PANNIER_CLIENT_{service}_ADDRESS" for service in ("RAG", "CACHE", "BALANCER", "<SERVICE>")
}
VARIABLE = re.compile(r"PANNIER_[A-Z]+[A-Z_]*(?:<SERVICE>_[A-Z_]+|[A-Z](?![A-Z_*{<]))")


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *PLACES], ids=lambda path: str(path.relative_to(ROOT))
)
def test_variables_that_are_named_are_read(path):
    assert set(VARIABLE.findall(path.read_text())) - SETTINGS - OF_COMMANDS == set()


def test_the_rule_finds_names():
    text = (
        "`PANNIER_RAG_MODEL`, PANNIER_<SERVICE>_X, PANNIER_CLIENT_<SERVICE>_ADDRESS, PANNIER_RAG_*"
    )
    assert VARIABLE.findall(text) == ["PANNIER_RAG_MODEL", "PANNIER_CLIENT_<SERVICE>_ADDRESS"]
