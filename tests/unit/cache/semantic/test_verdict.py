"""What is learned from who says what about a match."""

import pytest

from services.cache.core.semantic.verdict import Finding, Judge, Verdict, finding_of

LOOKED_AT_THE_ANSWER = [each for each in Judge if each is not Judge.EVIDENCE]


@pytest.mark.parametrize("judge", LOOKED_AT_THE_ANSWER)
def test_who_has_looked_at_the_answer_says_whether_it_is_right(judge):
    assert finding_of(Verdict.RIGHT, judge) is Finding.RIGHT
    assert finding_of(Verdict.WRONG, judge) is Finding.WRONG


def test_evidence_can_rule_an_answer_out_but_shows_none_to_be_right():
    assert finding_of(Verdict.RIGHT, Judge.EVIDENCE) is None
    assert finding_of(Verdict.WRONG, Judge.EVIDENCE) is Finding.UNFIT


@pytest.mark.parametrize("judge", Judge)
def test_nothing_is_learned_where_nothing_was_decided(judge):
    assert finding_of(Verdict.UNDECIDED, judge) is None
