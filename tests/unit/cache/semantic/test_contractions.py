import pytest

from services.cache.core.semantic.contractions import written_out


@pytest.mark.parametrize(
    ("text", "long"),
    [
        ("Why can't I?", "Why can not I?"),
        ("It won\u2019t start", "It will not start"),
        ("what's the card's limit", "what is the card's limit"),
        ("dont", "do not"),
        ("I'd like it", "I would like it"),
        ("we've paid", "we have paid"),
        ("cannot", "can not"),
        ("Pls, CANNOT", "please, can not"),
        ("the dentist", "the dentist"),
        (
            "Instagram\u2019\u0131m a\u00e7\u0131lm\u0131yor",
            "Instagram'\u0131m a\u00e7\u0131lm\u0131yor",
        ),
        ("it's the do\u017fnt", "it is the do\u017fnt"),
    ],
)
def test_contractions_are_written_out(text, long):
    assert written_out(text) == long
