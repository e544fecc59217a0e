import pytest

from services.cache.core.semantic.phrases import joined
from services.cache.core.semantic.tokens import tokenize


def words(text):
    return [token.text for token in joined(tokenize(text))]


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("turn the dark mode off", "deactivate the dark mode"),
        ("two hundred and fifty euros", "250 EUR"),
        ("10k users", "ten thousand users"),
        ("log in", "login"),
        ("rollover", "roll over"),
        ("two-factor authentication", "2FA"),
        ("May 5th, 2024", "5 May 2024"),
        ("1 March 2024", "2024-03-01"),
        ("the second prize", "the 2nd prize"),
        ("in place of sour cream", "instead of sour cream"),
        ("United States", "usa"),
    ],
)
def test_what_belongs_together_is_one(text, same):
    assert words(text) == words(same)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("which one of them", ["which", "one", "of", "them"]),
        ("one apple", ["1", "appl"]),
        ("30 seconds", ["30", "second"]),
        ("the second", ["the", "2"]),
        ("put the card in the slot", ["put", "the", "card", "in", "the", "slot"]),
        ("may I", ["may", "i"]),
    ],
)
def test_what_only_looks_like_it_stays_apart(text, found):
    assert words(text) == found
