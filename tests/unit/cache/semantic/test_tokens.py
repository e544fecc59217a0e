import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.semantic.tokens import Kind, tokenize


def written(text):
    return [(token.kind.name, token.text) for token in tokenize(text)]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("$5.00", [("NUMBER", "5"), ("UNIT", "dollar")]),
        ("5kg", [("NUMBER", "5"), ("UNIT", "kilogram")]),
        ("2nd", [("ORDINAL", "2")]),
        ("v2.1", [("NUMBER", "2.1")]),
        ("3:30 pm", [("DATE", "15:30")]),
        ("2024-03-01", [("DATE", "m3"), ("DATE", "1"), ("DATE", "2024")]),
        ("Mondays", [("DATE", "w1")]),
        ("`ls -la`", [("CODE", "ls -la")]),
        ("user_id", [("CODE", "user_id")]),
        ("C++, C#", [("CODE", "c++"), ("BORDER", ","), ("CODE", "c#")]),
        ("--force", [("CODE", "--force")]),
        ("ask a.b@c.org", [("WORD", "ask"), ("CODE", "a.b@c.org")]),
        ("https://a.org/b?", [("CODE", "https://a.org/b"), ("BORDER", ",")]),
        ("vitamin C", [("WORD", "vitamin"), ("CODE", "C")]),
        ("World War I", [("WORD", "world"), ("WORD", "war"), ("CODE", "I")]),
        ("the US and us", [("WORD", "the"), ("WORD", "US"), ("WORD", "and"), ("WORD", "us")]),
        ("e-mail", [("WORD", "email")]),
        ("the card's", [("WORD", "the"), ("WORD", "card")]),
    ],
)
def test_tokens_are_recognised(text, tokens):
    assert written(text) == tokens


def test_a_capital_marks_a_name_unless_it_begins_the_text():
    [first, second] = tokenize("Hello Berlin")
    assert not first.is_name
    assert second.is_name
    assert not any(token.is_name for token in tokenize("BERLIN IS LOUD"))


@given(st.text())
def test_any_text_has_tokens_that_say_something(text):
    assert all(token.text for token in tokenize(text) if token.kind is not Kind.CODE)


@given(st.from_regex(r"[A-Za-z]{1,40}", fullmatch=True))
def test_a_word_is_the_same_before_a_blank_and_before_a_mark(word):
    for begin in ("", "part ", "PART ", "5 "):
        *before_mark, _ = tokenize(f"{begin}{word},")
        assert tokenize(f"{begin}{word} ") == tokenize(f"{begin}{word}") == before_mark
