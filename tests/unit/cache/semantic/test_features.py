from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.semantic.features import features


def test_a_question_is_read_into_what_is_compared():
    read = features("How do I send 5 euros to Anna before Monday, not to Bob?")
    assert read.words == {"send", "5", "euro", "anna", "w1", "bob"}
    assert read.numbers == ("5",)
    assert read.units == ("euro",)
    assert read.dates == ("w1",)
    assert read.negations == ("bob",)
    assert read.relations == (("before", "w1"), ("to", "anna"), ("to", "bob"))
    assert {"anna", "bob"} <= read.names


def test_a_question_of_function_words_is_about_these():
    assert features("Who are you?").words == {"you"}
    assert features("???").words == frozenset()


@given(st.text(max_size=200))
def test_any_text_can_be_read_and_compared(text):
    assert features(text) == features(f" {text} ")
    hash(features(text))
