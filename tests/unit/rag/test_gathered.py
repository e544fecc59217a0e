"""What several searches find has numbers that stay."""

from dataclasses import replace

from services.rag.core.gathered import Findings
from services.rag.core.passages import FusedChunk, RankedPassage
from tests.kit.candidates import passage


def ranked(text, number):
    found = passage(number, text, document_id=f"doc{number}")
    return RankedPassage(found, FusedChunk(chunk_id=number, score=1.0))


A, B, C, D = (ranked(f"Text {name}.", number) for number, name in enumerate("abcd", 1))


def numbers(found):
    return [(each.number, each.is_new) for each in found]


def test_numbers_stay_over_searches():
    findings = Findings()
    assert numbers(findings.add([A, B])) == [(1, True), (2, True)]
    assert numbers(findings.add([C, B])) == [(3, True), (2, False)]
    assert len(findings) == 3


def test_the_first_of_each_search_are_left_out_last():
    findings = Findings()
    findings.add([A, B, C])
    findings.add([D, C])
    assert findings.in_turn() == (A, D, B, C)
    assert findings.in_order([D, A]) == (A, D)


def test_a_part_of_what_is_known_is_known():
    findings = Findings()
    findings.add([A])
    whole = A.passage
    part = replace(A, passage=replace(whole, text=whole.text[2:], char_start=2, chunk_id=77))
    assert numbers(findings.add([part])) == [(1, False)]
    changed = replace(A, passage=replace(whole, text="Another version."))
    assert numbers(findings.add([changed])) == [(2, True)]
