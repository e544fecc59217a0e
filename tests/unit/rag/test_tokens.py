from math import ceil

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.rag.core.tokens import TokenMeter, estimate_tokens


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("", 0, 0),
        ("The cat sat on the mat.", 6, 9),
        ("机器学习很有用", 7, 7),
        ("foo(bar, baz=[1, 2])", 12, 15),
        ("getHTTPResponseFromServer", 5, 10),
        ("привет мир", 6, 9),
        ("2026", 2, 2),
    ],
)
def test_estimates_are_near_what_models_count(text: str, low: int, high: int) -> None:
    assert low <= estimate_tokens(text) <= high


@given(st.text())
# The one space among the letters of an alphabet.
@example("\u1680")
def test_the_meter_agrees_with_the_estimate_of_the_whole_text(text: str) -> None:
    assert estimate_tokens(text) - 1 <= TokenMeter(text).count(0, len(text)) + 1e-6
    assert TokenMeter(text).count(0, len(text)) <= estimate_tokens(text) + 1e-6


@given(st.text(), st.data())
def test_the_parts_of_a_text_add_up(text: str, data: st.DataObject) -> None:
    meter = TokenMeter(text)
    middle = data.draw(st.integers(0, len(text)))
    parts = meter.count(0, middle) + meter.count(middle, len(text))
    assert parts == pytest.approx(meter.count(0, len(text)))
    assert meter.count(0, middle) >= 0


PIECES = (
    *(
        *"aZ09 .,_-\n\t\x1f",
        "\n\n",
        "word",
        "2026",
        "\u203a",
        "\u2014",
        "\u201c",
        "\u00a0",
        "\u2003",
    ),
    *("\u00e4", "\u1e9e", "\u0431", "\u4e2d", "\ud800", "\U0001f600"),
)


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_whatever_stands_in_a_text_its_estimate_is_the_sum_of_its_pieces(text: str) -> None:
    assert estimate_tokens(text) == ceil(TokenMeter(text).count(0, len(text)) - 1e-9)


def test_a_paragraph_costs_the_same_alone_and_in_a_long_text() -> None:
    paragraph = "Reads the pack-file (v2.1) of getHTTPResponse. " * 20
    lengths = [estimate_tokens("\n\n".join([paragraph] * count)) for count in (1, 10)]
    assert lengths[1] == pytest.approx(10 * lengths[0], abs=10)
    # Too long to be remembered, where paragraphs are.
    assert estimate_tokens(" ".join([paragraph] * 10)) == lengths[1]


@pytest.mark.parametrize("word", ["word", "слово", "2026", "字", "-", "é" * 20_000, "7" * 40_000])
def test_a_long_text_counts_as_much_as_its_words(word: str) -> None:
    count = 50_000 // len(word) + 2
    text = f" \n{word}" * count
    alone, meter = TokenMeter(word).count(0, len(word)), TokenMeter(text)
    assert meter.count(0, len(text)) == pytest.approx(count * alone)
    step = len(word) + 2
    for start in range(2, len(text), step * (count // 10 or 1)):
        assert meter.count(start, start + len(word)) == pytest.approx(alone)
