"""What a sentence says is held against its sources: by words, by numbers, by yes and no."""

import json
from pathlib import Path

import pytest

from services.rag.core.evidence import EvidenceIndex
from services.rag.core.verification import SupportStatus, Verification, is_claim

CASES = json.loads((Path(__file__).parents[2] / "data" / "answer_support.json").read_text("utf-8"))


def judge(sentence, passages, markers=(1,), headers=None):
    headers = headers or [""] * len(passages)
    verification = Verification(passages, headers, EvidenceIndex(passages))
    return verification.judge(sentence, markers)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["sentence"][:60])
def test_a_sentence_is_judged_as_a_careful_reader_would(case):
    found = judge(case["sentence"], case["passages"], case["cites"])
    assert found.status.value in case["expected"], (found.support, found.unfounded)


def test_no_number_that_the_sources_lack_is_called_supported():
    """The goal: at most 2 % of what is called supported holds such a number."""
    assert len(CASES) >= 80
    supported = [
        case
        for case in CASES
        if judge(case["sentence"], case["passages"], case["cites"]).status
        is SupportStatus.SUPPORTED
    ]
    assert len(supported) > 30
    wrong = [each for each in supported if each["kind"] in ("number", "unit", "displaced")]
    assert not wrong


REFERENCE = """class Ready(builtins.object)
 |  Ready(limit=3)
 |
 |  Waits until all is ready. If no limit is given, None
 |  is returned.
 |
 |  close(self)
 |      Close it for good. You must not press the red button.
 |
 |  open(self, again=False)
 |      Open it, which takes 5 seconds and 20 MB.
"""


@pytest.mark.parametrize(
    "sentence",
    [
        "If no limit is given, None | is returned.",
        "class Ready(builtins.object) | Ready(limit=3) | | Waits until all is ready.",
        "close(self) Close it for good. You must not press the red button",
        "| close(self) | Close it for good. You must not press the red button. | | "
        "open(self, again=False) | Open it, which takes 5 seconds and 20 MB.",
    ],
)
@pytest.mark.parametrize("markers", [(1,), ()])
def test_whole_sentences_of_a_source_are_supported_however_they_are_set(sentence, markers):
    found = judge(sentence, [REFERENCE], markers)
    assert found.status is SupportStatus.SUPPORTED
    assert found.support == 1.0
    quote = REFERENCE[found.best.char_start : found.best.char_end]
    assert quote.split()[-1].strip("|.") == sentence.split()[-1].strip("|.")


@pytest.mark.parametrize(
    "sentence",
    [
        "Press the red button.",
        "If a limit is given, None is returned.",
        "If no limit is given, None is not returned.",
        "open(self, again=False) | Open it, which takes 20 seconds and 5 MB.",
        "Open it, which takes 6 seconds and 20 MB.",
        "The value a = b is what is returned if no limit is given.",
    ],
)
def test_a_part_or_another_wording_of_a_source_is_no_quotation(sentence):
    assert EvidenceIndex([REFERENCE]).repeated(sentence, 0) is None


def test_a_margin_does_not_cut_a_clause_in_two():
    text = "If `type' is not known, None\n     |      is returned for it. More follows.\n"
    sentence = "If `type' is not known, None | is returned for it."
    assert judge(sentence.replace("for it", "to you"), [text]).is_contradicted is False
    assert judge("If `type' is known, None is returned for it.", [text]).is_contradicted
    rows = "| name | allowed |\n| root | not allowed |\n"
    assert judge("root is allowed here.", [rows]).status is not SupportStatus.SUPPORTED


def test_a_sign_is_part_of_a_quotation():
    index = EvidenceIndex(["Go on while a != b. Stop at x < -1."])
    assert index.repeated("Go on while a != b!", 0) is not None
    assert index.repeated("Go on while a = b.", 0) is None
    assert index.repeated("Stop at x < 1.", 0) is None
    assert index.repeated("...", 0) is None


def test_what_is_made_up_is_listed():
    found = judge(
        'In 1999 the "blue lever" was pulled by Ada Lovelace.',
        ["Press the blue button to stop the machine. It was built in 1998."],
    )
    assert found.status is SupportStatus.NUMBER_MISMATCH
    assert found.unfounded == ("1999", "blue lever", "Ada Lovelace")


def test_a_heading_counts_as_said():
    text = "It waits for 30 seconds and then gives up."
    sentence = "The connection timeout waits for 30 seconds."
    plain, headed = judge(sentence, [text]), judge(sentence, [text], headers=["Connection timeout"])
    assert headed.coverage > plain.coverage
    assert headed.status is SupportStatus.SUPPORTED


def test_meaning_counts_more_than_words():
    found = judge("To halt the device, push the blue knob.", ["Press the blue button to stop it."])
    assert found.status is not SupportStatus.SUPPORTED
    assert found.with_meaning(0.95).support == pytest.approx(0.45 * found.coverage + 0.55 * 0.95)
    assert found.with_meaning(-1.0).support == pytest.approx(0.45 * found.coverage)


def test_nothing_is_known_without_passages():
    verification = Verification([], [], EvidenceIndex([]))
    assert verification.judge("It is so.", ()).status is SupportStatus.NO_CLAIM


@pytest.mark.parametrize(
    ("sentence", "claims"),
    [
        ("It takes 5 seconds.", True),
        ("Should I go on?", False),
        ("Gern geschehen, hallo!", True),
        ("Hallo!", False),
        ("", False),
        ("| --- | --- |", False),
        ("**Note**", False),
        ("That is not stated in the passages.", False),
    ],
)
def test_what_claims_nothing_is_not_checked(sentence, claims):
    assert is_claim(sentence) is claims
