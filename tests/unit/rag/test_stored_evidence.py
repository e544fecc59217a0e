"""Passages need not be looked for again while nothing can have become of them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.rag.core.stored_evidence import CollectionState, EvidenceNote

THEN = datetime(2026, 5, 1, 12, tzinfo=UTC)
STATE = CollectionState(
    version=7, transaction_number=700, server_started_at=THEN - timedelta(days=9), read_at=THEN
)
LATER = replace(STATE, read_at=THEN + timedelta(hours=1))
NOTE = EvidenceNote("entry", (1, 2), STATE)


def test_what_was_noted_holds_while_the_collection_is_unchanged():
    assert NOTE.holds_at(STATE)
    assert NOTE.holds_at(LATER)


@pytest.mark.parametrize(
    "state",
    [
        None,
        replace(LATER, version=8),
        # Set back to what it was before, it may have come to the same version another way.
        replace(LATER, transaction_number=701),
        replace(LATER, server_started_at=THEN),
    ],
)
def test_it_does_not_hold_where_something_may_have_changed(state):
    assert not NOTE.holds_at(state)


def test_it_holds_until_a_document_expires():
    note = replace(NOTE, expires_at=LATER.read_at)
    assert note.holds_at(replace(LATER, read_at=LATER.read_at - timedelta(microseconds=1)))
    assert not note.holds_at(LATER)


def test_it_never_holds_where_the_answer_shows_something_else():
    assert not replace(NOTE, state=None).holds_at(STATE)
