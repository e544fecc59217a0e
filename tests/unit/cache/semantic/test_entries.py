"""Entries are read as they were written, and called by what they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.model import Scope
from services.cache.core.savings import Savings
from services.cache.core.semantic.entries import (
    MalformedEntry,
    SemanticEntry,
    answer_version,
    decode_entry,
    encode_entry,
    entry_id,
    form_digest,
    split_entry_id,
)

PEPPER = b"a secret of the tests"
SCOPE = Scope("acme", "legal", "a" * 64)
FORM = form_digest("how?", partition_id="p" * 27, pepper=PEPPER)


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=20),
    st.integers(0, 2**62),
    st.floats(0, 1e6),
)
def test_an_entry_is_read_as_it_was_written(question, components, tokens, seconds):
    entry = SemanticEntry(
        scope=SCOPE,
        form=FORM,
        version=b"12345678",
        question=question,
        created_ms=1,
        expires_ms=2,
        tags=("a", "b"),
        savings=Savings(tokens, 7, seconds),
    )
    vector = np.array(components, dtype=np.float32)
    read, found = decode_entry(
        encode_entry(entry, vector),
        scope=SCOPE,
        form=FORM,
        created_ms=1,
        expires_ms=2,
        tags=("a", "b"),
    )
    assert read == entry
    assert found.tobytes() == vector.tobytes()


@pytest.mark.parametrize("cut", [0, 10, 35, 38, 41, 43, 47])
def test_what_was_cut_is_no_entry(cut):
    entry = SemanticEntry(
        scope=SCOPE,
        form=FORM,
        version=b"12345678",
        question="how?",
        created_ms=1,
        expires_ms=2,
        tags=(),
        savings=Savings(1, 2, 3.0),
    )
    data = encode_entry(entry, np.ones(3, dtype=np.float32))
    assert len(data) == 36 + 4 + 12
    with pytest.raises(MalformedEntry):
        decode_entry(data[:cut], scope=SCOPE, form=FORM, created_ms=1, expires_ms=2, tags=())


def test_an_entry_is_called_by_question_and_answer():
    version = answer_version(b"because", pepper=PEPPER)
    name = entry_id(FORM, version)
    assert split_entry_id(name) == (FORM, version)
    assert name != entry_id(FORM, answer_version(b"because!", pepper=PEPPER))


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "abc",
        FORM,
        f"{FORM}.",
        f"{FORM}.AAAA",
        f".{'A' * 11}",
        f"{FORM}.{'A' * 10}B",
        "ä.ö",
    ],
)
def test_what_is_no_name_is_told(text):
    assert split_entry_id(text) is None


@given(st.text())
def test_any_text_is_a_name_or_none(text):
    found = split_entry_id(text)
    assert found is None or entry_id(*found) == text


def test_a_form_belongs_to_its_partition_and_installation():
    assert form_digest("how?", partition_id="q" * 27, pepper=PEPPER) != FORM
    assert form_digest("how?", partition_id="p" * 27, pepper=b"another secret of it") != FORM
    assert form_digest("why?", partition_id="p" * 27, pepper=PEPPER) != FORM
