"""What is asked, how and by whom."""

import random
from collections import Counter
from itertools import islice

import pytest

from pannier.load.question_files import BadQuestions, parse_questions
from pannier.load.traffic import Mix, QuestionPool, Traffic

GROUPS = [(f"question {n}?", f"other wording {n}?") for n in range(50)]
PLAIN = Mix(modes={"rag": 1.0}, tenants={"a": 1.0})


def draw(count, mix=PLAIN, *, seed=1, groups=GROUPS):
    pool = QuestionPool(groups, random.Random(f"{seed}/q"))
    return list(islice(Traffic(random.Random(seed)).asks(pool, mix), count))


def test_the_same_seed_asks_the_same():
    mix = Mix(
        modes={"rag": 3, "direct": 1},
        tenants={"a": 3, "b": 1},
        repeat_ratio=0.4,
        paraphrase_ratio=0.2,
    )
    assert draw(500, mix) == draw(500, mix)
    assert draw(500, mix) != draw(500, mix, seed=2)


def test_new_questions_are_never_asked_twice_however_long_the_run_is():
    texts = [each.text for each in draw(500)]
    assert len(set(texts)) == 500
    assert {each.kind for each in draw(500)} == {"new"}


def test_modes_and_tenants_come_by_weight():
    mix = Mix(modes={"rag": 8, "direct": 2, "deep": 0}, tenants={"a": 3, "b": 1}, repeat_ratio=0.5)
    asks = draw(8000, mix)
    modes, tenants = Counter(x.mode for x in asks), Counter(x.tenant for x in asks)
    assert modes["rag"] / 8000 == pytest.approx(0.8, abs=0.03)
    assert tenants["a"] / 8000 == pytest.approx(0.75, abs=0.03)
    assert "deep" not in modes


def test_repeats_and_paraphrases_come_by_their_ratios():
    mix = Mix(
        modes={"rag": 1}, tenants={"a": 1}, repeat_ratio=0.5, paraphrase_ratio=0.2, window=200
    )
    kinds = Counter(each.kind for each in draw(5000, mix))
    assert kinds["repeat"] / 5000 == pytest.approx(0.5, abs=0.03)
    assert kinds["paraphrase"] / 5000 == pytest.approx(0.2, abs=0.03)


def test_a_repeat_was_asked_before_by_the_same_tenant_in_the_same_mode():
    mix = Mix(modes={"rag": 1, "deep": 1}, tenants={"a": 1, "b": 1}, repeat_ratio=0.6, window=20)
    asked: set[tuple[str, str, str]] = set()
    for each in draw(2000, mix):
        key = (each.mode, each.tenant, each.text)
        assert (key in asked) == (each.kind == "repeat")
        asked.add(key)


def test_only_the_window_is_repeated_and_its_latest_the_most():
    mix = Mix(modes={"rag": 1}, tenants={"a": 1}, repeat_ratio=0.5, window=10, zipf_exponent=1.0)
    recent: list[str] = []
    ranks: Counter[int] = Counter()
    for each in draw(20_000, mix):
        if each.kind == "repeat":
            ranks[recent.index(each.text) + 1] += 1
        else:
            recent = [each.text, *recent][:10]
    harmonic = sum(1 / rank for rank in range(1, 11))
    total = ranks.total()
    assert set(ranks) == set(range(1, 11))
    for rank in (1, 2, 5, 10):
        assert ranks[rank] / total == pytest.approx(1 / rank / harmonic, abs=0.015)


def test_a_question_without_other_wordings_is_a_new_one_instead_of_a_paraphrase():
    mix = Mix(modes={"rag": 1}, tenants={"a": 1}, paraphrase_ratio=1.0)
    asks = draw(30, mix, groups=[("only one?",)])
    assert {each.kind for each in asks} == {"new"}


def test_what_was_asked_in_one_phase_is_repeated_in_the_next():
    traffic = Traffic(random.Random(1))
    pool = QuestionPool(GROUPS, random.Random(2))
    first = [each.text for each in islice(traffic.asks(pool, PLAIN), 5)]
    mix = Mix(modes={"rag": 1}, tenants={"a": 1}, repeat_ratio=1.0)
    second = list(islice(traffic.asks(pool, mix, phase=1), 20))
    assert {each.text for each in second} <= set(first)
    assert {each.phase for each in second} == {1}


def test_questions_are_read_with_their_wordings():
    text = '# of nothing\n\none?\tuno?\n{"question": "two?", "paraphrases": ["due?", "two?"]}\n'
    assert parse_questions(text) == [("one?", "uno?"), ("two?", "due?")]


def test_all_lines_that_cannot_be_read_are_named():
    text = '{"question": 3}\nfine?\n{"question": "a?", "paraphrases": "b?"}\n{broken\n' + "x" * 8001
    with pytest.raises(BadQuestions) as error:
        parse_questions(text)
    assert [f"line {n}" in str(error.value) for n in (1, 2, 3, 4, 5)] == [1, 0, 1, 1, 1]
    with pytest.raises(BadQuestions, match="no question"):
        parse_questions("# nothing\n")
