"""Numbers are compared by value and unit, quotes and names by what is written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rag.core.claims import facts_of, fold, quantities_of


def only(text):
    (found,) = quantities_of(text)
    return found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1,000 ms", "1 s"),
        ("1 s", "one second"),
        ("90 minutes", "1.5 h"),
        ("two years", "24 months"),
        ("1,536 KiB", "1.5 MiB"),
        ("1.5 million dollars", "$1,500,000"),
        ("1.234,50 \u20ac", "EUR 1,234.50"),
        ("0,5 %", "5\u2030"),
        ("2024-05-01", "1 May 2024"),
        ("May 1st, 2024", "1. Mai 2024"),
        ("2024", "2024-05-01"),
        ("1 May", "2024-05-01"),
        ("v3.11.2", "3.11.2"),
        ("about 102 km", "100 km"),
        ("20th", "20"),
    ],
)
def test_the_same_amount_agrees_however_it_is_written(one, other):
    # A currency's code in front is no unit: the bare number is what agrees then.
    first, second = quantities_of(one)[0], quantities_of(other)[0]
    assert first.agrees(second)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("5 MB", "5 GB"),
        ("5 MB", "5 MiB"),
        ("100 km", "102 km"),
        ("about 110 km", "100 km"),
        ("5 seconds", "5 minutes"),
        ("2024-05-01", "2024-05-02"),
        ("2 May", "2024-05-01"),
        ("3.11.2", "3.11.20"),
        ("5 \u20ac", "$5"),
    ],
)
def test_other_amounts_do_not_agree(one, other):
    assert not only(one).agrees(only(other))
    assert not only(other).agrees(only(one)) or only(other).is_rough


@pytest.mark.parametrize(
    ("one", "other", "comparable"),
    [
        ("5 s", "7 minutes", True),
        ("5 s", "7 months", True),
        ("5 \u20ac", "$7", True),
        ("5 s", "7 MB", False),
        ("5", "7 MB", True),
    ],
)
def test_amounts_compare_that_answer_the_same_question(one, other, comparable):
    assert only(one).is_comparable(only(other)) is comparable


def test_an_article_after_a_number_word_is_no_unit():
    half = only("half an hour")
    assert (half.dimension, half.values) == ("", {0.5})


def test_a_number_may_group_its_digits_or_begin_a_fraction_with_the_same_mark():
    assert only("1.234").values == {1.234, 1234.0}
    assert only("1,234,567").values == {1234567.0}
    assert only("0,25").values == {0.25}


def test_the_place_of_an_amount_is_that_of_its_text():
    text = "It waits for 30 seconds, then for two minutes."
    for each in quantities_of(text):
        assert text[each.char_start : each.char_end].strip() == each.text
    assert [each.text for each in quantities_of(text)] == ["30 seconds", "two minutes"]


def test_common_words_for_small_numbers_need_no_source():
    assert facts_of("One of both is called once.").quantities == ()
    assert [each.text for each in facts_of("Three are called twice.").quantities] == ["Three"]


def test_what_is_quoted_is_listed_and_marks_alone_are_not():
    facts = facts_of('It says "not now", \u201elater\u201c and `max_size`, then "..."')
    assert facts.quotes == ("not now", "later", "max_size")


@pytest.mark.parametrize(
    ("statement", "names"),
    [
        ("The Eiffel Tower is in Paris.", ["Eiffel Tower", "Paris"]),
        ("Cheese is good in winter.", []),
        ("It comes with asyncio.Queue and HTTPServer.", ["asyncio.Queue", "HTTPServer"]),
        ("Run it with --verbose or max_size.", ["--verbose", "max_size"]),
        ("In May it rains in New York.", ["New York"]),
        ("According to Ada Lovelace of London it works.", ["Ada Lovelace of London"]),
    ],
)
def test_names_are_listed_and_the_words_that_begin_a_sentence_are_not(statement, names):
    facts = facts_of(statement)
    assert [each.text for each in facts.names] == names
    assert all(statement[each.char_start :].startswith(each.text) for each in facts.names)


def test_case_emphasis_and_spaces_do_not_count():
    assert fold("**The\u00a0Queue\u2019s**\n SIZE") == "the queue's size"


@given(st.integers(0, 999_999), st.sampled_from(["ms", "s", "minutes", "kB", "MB", "km"]))
def test_a_number_agrees_with_itself_grouped_or_not(number, unit):
    assert only(f"{number:,} {unit}").agrees(only(f"{number} {unit}"))


@given(st.text(alphabet="0123456789.,:-$% \u20ackKmMsbtwoMay", max_size=40))
def test_amounts_follow_each_other_inside_any_text(text):
    found = quantities_of(text)
    assert all(0 <= each.char_start < each.char_end <= len(text) for each in found)
    places = [each.char_start for each in found]
    assert places == sorted(set(places))
