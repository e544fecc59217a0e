"""A statement contradicts a source that says no to it, or the opposite, in the same clause."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rag.core.polarity import clauses_of, contradicts


@pytest.mark.parametrize(
    ("statement", "source"),
    [
        ("The queue is not thread-safe.", "The queue is thread-safe."),
        ("Queue objects never block writers.", "Queue objects block writers."),
        ("Die Warteschlange blockiert nicht.", "Die Warteschlange blockiert."),
        ("Compression is enabled by default.", "Compression is disabled by default."),
        ("The newer format holds more columns.", "The newer format holds fewer columns."),
        ("The newer format holds more columns.", "The newer format holds less columns."),
        ("Anonymous requests are accepted.", "Anonymous requests are rejected."),
        ("Anonymous requests are approved.", "Anonymous requests are rejected."),
    ],
)
def test_a_negation_or_an_opposite_contradicts_both_ways(statement, source):
    assert contradicts(statement, source)
    assert contradicts(source, statement)


@pytest.mark.parametrize(
    ("statement", "source"),
    [
        ("The queue is thread-safe.", "The queue is thread-safe."),
        ("The queue is not thread-safe.", "The queue isn't thread-safe."),
        ("It cannot be said that the queue is not thread-safe.", "The queue is thread-safe."),
        ("Compression is not disabled by default.", "Compression is enabled by default."),
        ("The queue is thread-safe.", "The stack never grows."),
        ("The limit rises from the lower to the higher value.", "The limit has a higher value."),
    ],
)
def test_what_agrees_or_is_of_something_else_does_not_contradict(statement, source):
    assert not contradicts(statement, source)


def test_a_negation_counts_only_for_its_clause():
    source = "The cache is kept on disk, but the log of queries is not kept anywhere."
    assert not contradicts("The cache is kept on disk.", source)
    assert contradicts("The log of queries is kept.", source)


def test_a_clause_of_hardly_any_terms_goes_with_the_one_before():
    text = "The server accepts many connections, of course, and closes idle connections."
    assert clauses_of(text) == [
        "The server accepts many connections  of course",
        "closes idle connections",
    ]


def test_a_row_of_a_table_is_one_clause():
    assert clauses_of("| a | b, c |\n| d | e |") == ["| a | b, c |", "| d | e |"]


def test_a_wrapped_line_goes_on_and_an_item_of_a_list_does_not():
    text = "Idle connections\nare closed soon\n- busy connections stay open"
    assert clauses_of(text) == [
        "Idle connections are closed soon",
        "- busy connections stay open",
    ]


@given(st.text(max_size=80))
def test_nothing_contradicts_itself(text):
    assert not contradicts(text, text)
