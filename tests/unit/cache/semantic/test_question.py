import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.semantic.contractions import written_out
from services.cache.core.semantic.question import Tense, Wanted, read_question


@pytest.mark.parametrize(
    ("text", "wanted", "matter"),
    [
        ("Could you please tell me how I can reset it?", Wanted.HOW, "reset it"),
        ("What's the best way to cancel an order?", Wanted.HOW, "cancel an order"),
        ("Hi, I lost it. How do I get a new one?", Wanted.HOW, "I lost it , get a new one"),
        ("Do I have to sign?", Wanted.NECESSITY, "sign"),
        ("Is it possible to pay by card, please?", Wanted.POSSIBILITY, "pay by card"),
        ("Why can't I log in?", Wanted.WHY, "not I log in"),
        ("What does escrow mean?", Wanted.WHAT, "escrow"),
        ("If it is stolen, what happens?", Wanted.WHAT, "If it is stolen , happens"),
        ("When I travel, can I pay?", Wanted.POSSIBILITY, "When I travel , pay"),
        ("How far is Rome?", Wanted.DEGREE, "far is Rome"),
        ("How long does it take to heal?", Wanted.DURATION, "heal"),
        ("What is the reason for the delay?", Wanted.WHY, "the delay"),
        ("Should I call?", Wanted.ADVICE, "call"),
    ],
)
def test_what_is_asked_for_is_taken_off(text, wanted, matter):
    asked = read_question(written_out(text))
    assert wanted in asked.wanted
    assert asked.subject_matter == matter


def test_a_phrase_may_be_read_in_several_ways():
    assert read_question("Is there a way to export it?").wanted == {
        Wanted.POSSIBILITY,
        Wanted.HOW,
    }
    assert Wanted.HOW in read_question("reset password").wanted
    assert read_question("I have a headache").wanted == {Wanted.REMARK}


def test_tense_and_modal_come_from_the_verb_it_begins_with():
    assert read_question("When did it open?").tense is Tense.PAST
    assert read_question("When will it open?").tense is Tense.FUTURE
    assert read_question("When does it open?").tense is Tense.PRESENT
    assert read_question("When should I pay?").modal == "should"


@given(st.text(max_size=200))
def test_any_text_asks_for_something(text):
    assert read_question(text).wanted
