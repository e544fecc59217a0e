import pytest

from services.cache.core.semantic.features import features
from services.cache.core.semantic.word_order import says_the_same


def same(query, other):
    first, second = features(query), features(other)
    assert says_the_same(first, second) == says_the_same(second, first)
    return says_the_same(first, second)


@pytest.mark.parametrize(
    ("query", "other"),
    [
        ("In Python, how do I sort a list?", "How do I sort a list in Python?"),
        ("the limit of the card", "the card's limit"),
        ("Is tea or coffee better?", "Is coffee or tea better?"),
        ("Go from Rome to Oslo", "Go to Oslo from Rome"),
        ("report my card as stolen", "report my stolen card"),
        ("roll a 6 sided dice", "a 6 sided dice roll"),
        ("a room for four in Bonn on Friday", "a room in Bonn on Friday for four"),
    ],
)
def test_a_phrase_may_stand_elsewhere(query, other):
    assert same(query, other)


@pytest.mark.parametrize(
    ("query", "other"),
    [
        ("Can dogs infect cats?", "Can cats infect dogs?"),
        ("Is a square a rectangle?", "Is a rectangle a square?"),
        ("chocolate milk", "milk chocolate"),
        ("red wine with fish", "fish with red wine"),
        ("someone who bites your dog", "someone whose dog bites you"),
        ("a nurse in Bonn and a cook in Rome", "a nurse in Rome and a cook in Bonn"),
    ],
)
def test_words_that_change_their_roles_say_something_else(query, other):
    assert not same(query, other)
