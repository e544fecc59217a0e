import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.semantic import scope
from services.cache.core.semantic.scope import (
    LONGEST_QUESTION_TOKENS,
    QuestionScope,
    estimated_tokens,
    scope_of,
    scope_of_all,
)


@pytest.mark.parametrize(
    "query",
    [
        "What is on the menu today?",
        "Who is the current chairman?",
        "What did the board decide last week?",
        "What's the latest release?",
        "What is the weather in Rome?",
        "Which flights leave tomorrow?",
        "What happened two days ago?",
        "Was gibt es heute?",
    ],
)
def test_what_depends_on_the_time_is_out_of_scope(query):
    assert scope_of(query) is QuestionScope.TIME_RELATIVE


@pytest.mark.parametrize(
    "query",
    [
        "What is my balance?",
        "Where's my order?",
        "how many vacation days do I have left",
        "Has my payment gone through?",
        "please show me my invoices",
        "What is the status of my application?",
        "Where is our order?",
        "Who am I?",
    ],
)
def test_what_depends_on_who_asks_is_out_of_scope(query):
    assert scope_of(query) is QuestionScope.PERSONAL


@pytest.mark.parametrize(
    "query",
    [
        "How do I change my PIN?",
        "Can I cancel my order?",
        "What should I do when my flight is cancelled?",
        "What is our vacation policy?",
        "What is a current account?",
        "How is alternating current measured?",
        "What do I have to pay for parking?",
        "What is the latest possible check-in?",
        "I know nothing about tomatoes",
        "",
    ],
)
def test_what_has_one_answer_is_in_scope(query):
    assert scope_of(query) is None


def test_a_long_question_is_out_of_scope():
    assert scope_of("word " * LONGEST_QUESTION_TOKENS) is None
    assert scope_of("word " * (LONGEST_QUESTION_TOKENS + 1)) is QuestionScope.TOO_LONG


def test_many_polite_words_take_no_time():
    assert scope_of("please, " * 100 + "where is my order?") is QuestionScope.PERSONAL
    assert scope_of("hi! " * 200 + "where is the station?") is None


def test_one_question_of_a_prompt_decides_but_none_that_is_long():
    assert scope_of_all([]) is None
    assert scope_of_all(["Where is the station?", "How do I get there?"]) is None
    asked = ["And by bus?", "word " * 600, "Which trains leave today?"]
    assert scope_of_all(asked) is QuestionScope.TIME_RELATIVE
    assert scope_of_all(["today " * 600]) is None


def test_tokens_are_estimated_by_letters_digits_and_marks():
    assert estimated_tokens("yes") == 1
    assert estimated_tokens("reset the password") == 2 + 1 + 2
    assert estimated_tokens("2024!") == 5


TIMES = """today tonight tomorrow yesterday nowadays currently presently lately recently now
    upcoming at~the~moment what~time~is~it so~far as~of up~to~date what~day~is~it these~days
    weeks~ago this~week last~week next~week past~month coming~month previous~year latest newest
    most~recent current news weather forecast live~score heute morgen gestern jetzt aktuelle
    derzeit momentan neuesten aujourd'hui demain hier maintenant actuellement hoy ayer ahora
    actualmente ma\u00f1ana"""


@pytest.mark.parametrize("text", [each.replace("~", " ") for each in TIMES.split()])
def test_what_is_relative_to_time_is_found_out(text):
    assert scope_of(f"Tell me of boxes {text}?") is QuestionScope.TIME_RELATIVE


@given(st.from_regex(scope._TIME_RELATIVE))
def test_no_other_text_that_is_relative_to_time_is_passed_over(text):
    assert scope._may_name_a_time(text)
