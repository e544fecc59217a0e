"""What is remembered of common terms."""

import pytest

from services.rag.adapters import postgres_terms
from services.rag.adapters.postgres_terms import TermMemory

COMMON = 50_000


def test_common_terms_are_remembered_and_rare_ones_are_not() -> None:
    memory = TermMemory()
    memory.note("acme", "manuals", 7, [("pump", COMMON), ("gasket", 3)])
    memory.note("acme", "manuals", 7, [("valve", COMMON)])
    known = memory.of("acme", "manuals")
    assert (known.version, dict(known.by_term)) == (7, {"pump": COMMON, "valve": COMMON})


def test_another_version_forgets_what_was_known() -> None:
    memory = TermMemory()
    memory.note("acme", "manuals", 7, [("pump", COMMON)])
    memory.note("acme", "manuals", 8, [("valve", COMMON)])
    assert dict(memory.of("acme", "manuals").by_term) == {"valve": COMMON}


def test_tenants_and_collections_are_apart() -> None:
    memory = TermMemory()
    memory.note("acme", "manuals", 7, [("pump", COMMON)])
    assert not memory.of("acme", "letters").by_term
    assert not memory.of("other", "manuals").by_term


def test_neither_terms_nor_collections_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_terms, "_MOST_TERMS", 3)
    monkeypatch.setattr(postgres_terms, "_MOST_COLLECTIONS", 2)
    memory = TermMemory()
    memory.note("acme", "manuals", 7, [(f"term{number}", COMMON) for number in range(9)])
    assert list(memory.of("acme", "manuals").by_term) == ["term6", "term7", "term8"]
    for name in ("letters", "notes"):
        memory.note("acme", name, 1, [("pump", COMMON)])
    assert not memory.of("acme", "manuals").by_term
