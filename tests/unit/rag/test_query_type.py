import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rag.core.query_type import QueryType, query_type


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("How do I stop the machine?", QueryType.HOW_TO),
        ("how to install it on Windows", QueryType.HOW_TO),
        ("What are the steps to cancel an order?", QueryType.HOW_TO),
        ("Wie kann ich die Maschine anhalten?", QueryType.HOW_TO),
        ("Compare plan A and plan B", QueryType.COMPARISON),
        ("What is the difference between RAM and ROM?", QueryType.COMPARISON),
        ("postgres vs mysql", QueryType.COMPARISON),
        ("Was ist der Unterschied zwischen A und B?", QueryType.COMPARISON),
        ("Why does it stop?", QueryType.WHY),
        ("Warum hält sie an?", QueryType.WHY),
        ("What is a fox?", QueryType.DEFINITION),
        ("Who was Ada Lovelace?", QueryType.DEFINITION),
        ("Was ist ein Fuchs?", QueryType.DEFINITION),
        ("What is the default size?", QueryType.FACT),
        ("How many foxes are there?", QueryType.FACT),
        ("When does the train leave?", QueryType.FACT),
        ("Wie lange dauert das?", QueryType.FACT),
        ("Is the button blue?", QueryType.YES_NO),
        ("Can I stop it?", QueryType.YES_NO),
        ("Darf ich das?", QueryType.YES_NO),
        ("List all foxes.", QueryType.INSTRUCTION),
        ("Please summarize the contract", QueryType.INSTRUCTION),
        ("Nenne drei Füchse.", QueryType.INSTRUCTION),
        ("red fox habitat", QueryType.KEYWORDS),
        ("E-4711", QueryType.KEYWORDS),
        ("¿Dónde está el botón?", QueryType.OTHER),
        ("The machine has been running for three days without any pause.", QueryType.OTHER),
    ],
)
def test_a_question_is_told_by_its_words(question, kind):
    assert query_type(question, has_history=False) is kind


def test_a_question_that_leans_on_another_is_a_follow_up_only_where_there_was_one():
    assert query_type("And on Windows?", has_history=True) is QueryType.FOLLOW_UP
    assert query_type("And on Windows?", has_history=False) is not QueryType.FOLLOW_UP
    assert query_type("How do I stop the blue machine?", has_history=True) is QueryType.HOW_TO


def test_there_are_few_of_them():
    assert len(QueryType) <= 10


@given(text=st.text(), has_history=st.booleans())
def test_every_text_is_of_some_kind(text, has_history):
    assert query_type(text, has_history=has_history) in QueryType


def test_a_long_text_takes_no_longer_than_its_beginning():
    text = "what does " + "x " * 100_000 + "mean"
    assert query_type(text, has_history=False) is QueryType.FACT
