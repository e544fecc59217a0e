from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from services.rag.core.ranking.duplicates import (
    _SEPARATORS,
    Shingles,
    _words,
    without_near_duplicates,
)
from tests.kit.candidates import candidate, passage

LLAMAS = (
    "Llamas carry loads of up to thirty kilograms over mountain passes, walk for eight hours a day "
    "and rest at noon where there is grass and water nearby."
)
TEXTS = st.lists(st.sampled_from("abcde").map(lambda word: f"{word} " * 4) | st.text(max_size=20))


def kept(*texts: str) -> list[int]:
    candidates = [
        candidate(passage(number, text), 1 / number) for number, text in enumerate(texts, 1)
    ]
    return [each.ranking.chunk_id for each in without_near_duplicates(candidates)]


def test_a_copy_with_other_spacing_case_and_a_changed_word_is_left_out() -> None:
    copy = LLAMAS.replace("nearby", "close by").replace(", ", ",\n   ").upper()
    assert kept(LLAMAS, copy, "Alpacas are shorn once a year.") == [1, 3]


def test_texts_that_differ_in_a_number_are_both_kept() -> None:
    numbered = LLAMAS.replace("thirty", "30")
    assert kept(numbered, numbered.replace("30", "35")) == [1, 2]


def test_texts_on_the_same_thing_in_other_words_are_both_kept() -> None:
    assert kept(LLAMAS, "A llama bears thirty kilograms across the mountains each day.") == [1, 2]


def test_writing_without_spaces_is_compared_by_characters() -> None:
    text = "美洲驼可以驮运重物翻越高山每天行走八小时中午在有草和水的地方休息"
    assert kept(text, text[:-1], "羊驼每年剪一次毛") == [1, 3]


def test_short_and_empty_texts_are_compared_as_a_whole() -> None:
    assert kept("Yes.", "yes", "No.", "", "?") == [1, 3, 4]


def test_no_more_are_looked_at_than_are_asked_for() -> None:
    candidates = iter([candidate(passage(number, f"text {number}"), 0.5) for number in range(9)])
    assert len(list(islice(without_near_duplicates(candidates), 2))) == 2
    assert next(candidates).ranking.chunk_id == 2


@given(TEXTS)
def test_the_best_is_kept_and_whatever_is_left_out_has_a_better_one_in_its_place(
    texts: list[str],
) -> None:
    numbers = kept(*texts)
    assert numbers == sorted(numbers)
    assert numbers[:1] == ([1] if texts else [])
    for number, text in enumerate(texts, 1):
        if number not in numbers:
            better = [texts[other - 1] for other in numbers if other < number]
            assert any(Shingles(text).says_the_same(Shingles(other)) for other in better)


@given(st.text(st.characters(max_codepoint=127)))
def test_the_words_of_plain_text_are_those_of_any_text(text: str) -> None:
    assert _words(text) == text.lower().translate(_SEPARATORS).split()
