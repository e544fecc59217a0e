"""Which questions are about how things stand when they are asked."""

import pytest

from services.cache.core.semantic.contractions import written_out
from services.cache.core.semantic.momentary import asks_about_now
from services.cache.core.semantic.scope import QuestionScope, scope_of


@pytest.mark.parametrize(
    "query",
    [
        "How many days until Christmas?",
        "How many days is it till the release?",
        "how long until the sale starts",
        "When is the next meeting?",
        "When does the next train to Rome leave?",
        "When's our next all-hands?",
        "What is the next public holiday?",
        "Who is the next speaker?",
        "Is the shop already open?",
        "Are we still hiring?",
        "Do they still sell tickets?",
        "Has the release been published yet?",
        "Hasn't the invoice been paid yet?",
        "Which seats are still free?",
        "Hi, could you please are the tickets still available?",
        "Is the server down?",
        "is the server up and running",
        "Is the gym open or closed?",
        "Are there tickets available?",
        "Is the VPN down again?",
        "How many days are left?",
        "How many days are left until the deadline?",
        "How much of the budget is left?",
        "How many seats remain?",
        "How many tickets are remaining?",
    ],
)
def test_what_changes_by_itself_is_about_now(query):
    assert asks_about_now(written_out(query))
    assert scope_of(query) is QuestionScope.TIME_RELATIVE


@pytest.mark.parametrize(
    "query",
    [
        "What is next.js?",
        "How do I deploy Next JS?",
        "What is the next() function?",
        "When does next() raise StopIteration?",
        "When is the next element of an iterator computed?",
        "What is the next step after the interview?",
        "Who sits next to the driver?",
        "How do I write a left join?",
        "How many rows does a left join return?",
        "How many bits do I have to shift left?",
        "How long can food be left in the fridge?",
        "How many bytes are left after compression?",
        "Is Python open source?",
        "What is open source?",
        "Is the shop open on Sundays?",
        "Is the shop open at 3 pm?",
        "Is an open set closed?",
        "Is it safe to leave the oven open?",
        "Is the service available in Germany?",
        "How do I shut the server down?",
        "What happens when the server is down?",
        "How do I wait until a process ends?",
        "How long do I boil eggs until they are hard?",
        "What are the rights of a tenant until the contract ends?",
        "How do I list the remaining disk space?",
        "Is there a limit for topping up?",
        "Is there a reason that a transfer is still pending?",
        "How do I get points for my next flight?",
        "What is still water?",
        "What does 'already exists' mean?",
        "What is YAML, yet another markup language?",
        "Does the warranty still apply if the phone was repaired?",
        "Why does the job still fail after a restart?",
        "How do I delete a branch that is already merged?",
        "",
    ],
)
def test_what_stays_as_it_is_may_be_shared(query):
    assert scope_of(query) is None


def test_a_long_question_is_read_in_a_moment():
    # No pattern goes back over what it has read again and again.
    for words in ("is the " + "word " * 1600, "how many " + "next step " * 800):
        assert not asks_about_now(words)
