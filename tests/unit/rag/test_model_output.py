import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rag.core.model_output import fenced, json_values, plain_line, string_pieces


@given(st.text())
def test_a_text_between_fences_cannot_hold_the_fence(text):
    fence, block = fenced(text)
    assert block.startswith(f"{fence}\n")
    assert block.endswith(f"\n{fence}")
    assert block.count(fence) == 2


def test_the_same_text_has_the_same_fence_and_another_one_another():
    assert fenced("a") == fenced("a")
    assert fenced("a")[0] != fenced("b")[0]


def test_what_is_not_seen_stays_out_of_the_fence():
    assert fenced("a\x00b\u202ec")[1].splitlines()[1] == "abc"


@given(st.text())
def test_any_output_is_read(output):
    for value in json_values(output):
        assert isinstance(value, (dict, list))
    assert all(isinstance(each, str) for each in string_pieces(output))


json_texts = st.recursive(
    st.text() | st.integers() | st.none(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
).filter(lambda value: isinstance(value, (dict, list)))


@given(json_texts, st.sampled_from(["", "Sure! Here it is:\n", "```json\n"]))
def test_json_is_found_whatever_stands_before_and_after_it(value, lead):
    assert json_values(f"{lead}{json.dumps(value)}\n``` I hope it helps.") == [value]


def test_thoughts_are_no_output():
    assert json_values('<think>maybe {"queries": ["no"]}</think>{"queries": ["yes"]}') == [
        {"queries": ["yes"]}
    ]
    assert json_values('<think>maybe {"queries": ["no"]}') == []


def test_deep_json_is_no_trouble():
    assert json_values("[" * 100_000) == []


def test_of_broken_json_the_complete_strings_are_read_and_no_keys():
    assert string_pieces('{"queries": ["one", "two \\"quoted\\"", "thr') == [
        "one",
        'two "quoted"',
    ]


def test_of_a_list_the_items_are_read():
    assert string_pieces("Here:\n1. one\n2) two\n- three\n* four\nfive") == [
        "one",
        "two",
        "three",
        "four",
    ]


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ('"a b"', "a b"),
        ("1. a\n b", "a b"),
        ('"a" and "b"', '"a" and "b"'),
        ('say "a"', 'say "a"'),
        ("\u201ea\u201c", "a"),
        ('"', '"'),
        ("", ""),
    ],
)
def test_a_line_loses_marks_and_quotes_around_it(text, plain):
    assert plain_line(text) == plain
