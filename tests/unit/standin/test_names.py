"""Completing and comparing model names."""

import pytest

from services.standin.core.names import parse_name


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("llama3.2", "llama3.2:latest"),
        ("llama3.2:1b", "llama3.2:1b"),
        ("library/llama3.2", "llama3.2:latest"),
        ("someone/model:x", "someone/model:x"),
        ("example.org/someone/model", "example.org/someone/model:latest"),
        ("localhost:5000/someone/model:x", "localhost:5000/someone/model:x"),
    ],
)
def test_defaults_complete_a_name_and_are_left_out_of_its_short_form(text, short):
    assert parse_name(text).short == short


def test_names_are_compared_without_case():
    assert parse_name("All-MiniLM").key == parse_name("library/all-minilm:LATEST").key


@pytest.mark.parametrize("text", ["", ":", "a:", "/a", "a b", "a/b/c/d e", "-a", "a:b:c", "x" * 81])
def test_a_part_that_is_empty_or_has_a_bad_character_makes_no_name(text):
    assert parse_name(text) is None
