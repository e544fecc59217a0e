"""What the demo holds against a run."""

from pathlib import Path

import pytest

from deploy.local.demo_corpus import MODULES, render_corpus
from deploy.local.demonstration import missing_hops
from pannier.commands.spans import Span


def span(service: str, kind: str) -> Span:
    return Span(
        span_id=f"{service}{kind}",
        parent_id="",
        service=service,
        name="x",
        kind=kind,
        start_nanoseconds=0,
        end_nanoseconds=1,
        attributes={},
    )


WHOLE = tuple(
    span(service, kind) for service in ("rag", "cache", "balancer") for kind in ("server", "client")
)


def test_a_whole_trace_lacks_nothing():
    assert missing_hops(WHOLE) == []


@pytest.mark.parametrize(
    ("left_out", "missing"),
    [
        (("cache", "client"), "calls from cache to Redis"),
        (("balancer", "client"), "calls from balancer to Ollama"),
    ],
)
def test_a_hop_that_left_no_span_is_named(left_out: tuple[str, str], missing: str):
    spans = tuple(each for each in WHOLE if (each.service, each.kind) != left_out)
    assert missing_hops(spans) == [missing]


def test_a_service_that_left_no_span_is_named():
    spans = tuple(each for each in WHOLE if each.service != "cache")
    assert missing_hops(spans) == ["cache", "calls from cache to Redis"]


def test_the_corpus_is_the_whole_documentation_of_at_least_sixty_modules(tmp_path: Path):
    corpus = render_corpus(tmp_path / "docs")
    texts = {path.stem: path.read_text() for path in corpus.folder.iterdir()}
    assert sorted(texts) == sorted(MODULES)
    assert corpus.document_count == len(set(MODULES)) >= 60
    assert corpus.character_count == sum(len(text) for text in texts.values())
    assert 600_000 <= corpus.character_count <= 900_000
    assert "get_close_matches(word, possibilities, n=3, cutoff=0.6)" in texts["difflib"]
    assert not any("\b" in text or " at 0x" in text for text in texts.values())
