"""The names of spans are few, and the ones that docs/tracing.md tells of."""

import re
from pathlib import Path

import pytest

from services.rag.stage_spans import span_of

_ROOT = Path(__file__).parents[3]
_STAGE = re.compile(r"""(?:recorder|recorder\(\))\.(?:stage|begin)\(["'](\w+)["']\)""")
_CONSTANT = re.compile(r"""^_STAGE = ["'](\w+)["']$""", re.MULTILINE)
_BY_ARGUMENT = ("vector_search", "keyword_search", "query_lookup", "semantic_lookup")


def stages():
    """The stages that stand in the code, and those that it is given by name."""
    texts = [each.read_text() for each in (_ROOT / "services" / "rag").glob("*.py")]
    found = {name for text in texts for form in (_STAGE, _CONSTANT) for name in form.findall(text)}
    return sorted({*found, *_BY_ARGUMENT})


@pytest.mark.parametrize("stage", stages())
def test_each_span_of_a_stage_is_told_of(stage):
    text = (_ROOT / "docs" / "tracing.md").read_text()
    called = span_of(stage)
    if called is None:
        return
    name = "execute_tool <tool>" if called.name.startswith("execute_tool ") else called.name
    assert f"`{name}`" in text or re.search(rf"`{name}\.\w+`", text), name


def test_the_stages_are_found():
    assert {"fuse", "generate", "collection", "embed_question", "rerank"} <= set(stages())
    assert len(stages()) > 25


def test_a_tool_is_called_by_its_name_and_always_the_same():
    assert span_of("tool_calculator").name == "execute_tool calculator"
    assert span_of("tool_calculator") is span_of("tool_calculator")
