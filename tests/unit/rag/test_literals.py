import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rag.core.literals import (
    foreign_numbers,
    literals,
    lost_names,
    missing_literals,
    numbers,
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Set max_connections to 200", ("max_connections", "200")),
        ('Find "red fox" in PDFs', ('"red fox"', "PDFs")),
        ("Find \u201ered fox\u201c and `code it`", ("\u201ered fox\u201c", "`code it`")),
        ("Is v1.2.3 newer than 1.2?", ("v1.2.3", "1.2")),
        ("Call asyncio.run or getUserName now", ("asyncio.run", "getUserName")),
        ("What is the plan?", ()),
        ("Stop. Then start.", ()),
        ("mail a@b.org", ("a@b.org",)),
        ("E42 on NATO bases", ("E42", "NATO")),
    ],
)
def test_quotes_identifiers_and_numbers_are_found(text, found):
    assert literals(text) == found


def test_numbers_are_written_one_way():
    assert numbers("1,000 and 1000 and 3,5 or 3.5") == {"1000", "3.5"}


def test_a_number_of_no_source_is_foreign():
    assert foreign_numbers("10 of 20 in 2024", "ten is 10", "20") == {"2024"}
    assert not foreign_numbers("no number", "")


def test_what_a_wording_lost_is_named_in_the_form_of_the_question():
    question = 'Set MAX_SIZE to 1,000 for "red fox"'
    assert missing_literals(question, "the limit of the red fox as max_size 1000") == ()
    assert missing_literals(question, "the limit") == ("MAX_SIZE", "1,000", '"red fox"')


@pytest.mark.parametrize(
    ("question", "wording", "lost"),
    [
        ("Does Acme sell it?", "Does acme sell the plan?", ()),
        ("Does Acme sell it?", "Is the plan sold?", ("Acme",)),
        ("Is it fast? Does it scale?", "Is the index fast?", ()),
        ("Was kostet der Tarif?", "Kosten des Tarifs", ()),
    ],
)
def test_a_name_must_not_get_lost(question, wording, lost):
    assert lost_names(question, wording) == lost


@given(st.text())
def test_a_text_has_all_its_own_literals_and_numbers(text):
    assert missing_literals(text, text) == ()
    assert lost_names(text, text) == ()
    assert not foreign_numbers(text, text)
