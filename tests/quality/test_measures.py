from types import MappingProxyType

import numpy as np
import pytest

from services.cache.core.intervals import wilson
from tests.bench.cache.quality_measures import (
    DECISIONS,
    Corpus,
    areas,
    simulate,
    uncontested,
)
from tests.bench.cache.quality_readings import name_of, readings
from tests.bench.cache.quality_sets import QUALITY_FOLDER, Question


def corpus(*rows, readings=MappingProxyType({})):
    """Questions, their intents and their angles in degrees."""
    angles = np.radians([angle for _, _, angle in rows])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    return Corpus([Question(text, intent) for text, intent, _ in rows], vectors, readings)


def test_only_right_hits_count_as_right():
    asked = corpus(("reset the router", "a", 0), ("reset the router!", "a", 5), ("run", "b", 90))
    result = simulate(asked, DECISIONS["cosine"], 0.95, (1, 2))
    assert (result.questions, result.hits, result.wrong) == (6, 2, 0)
    assert result.hit_ratio == pytest.approx(1 / 3)


def test_pairs_read_as_the_same_are_not_false_as_read():
    rows = [("top up", "a", 0), ("topping up", "b", 5), ("run", "c", 90), ("walk", "d", 95)]
    asked = corpus(*rows, readings={frozenset(map(name_of, ("top up", "topping up"))): ""})
    result = simulate(asked, DECISIONS["cosine"], 0.95, (1,))
    assert (result.hits, result.wrong, result.wrong_as_read) == (2, 2, 1)
    assert result.false_share_as_read == 0.5


def test_the_list_of_readings_names_pairs_once_and_says_what_tells_some_apart():
    text = (QUALITY_FOLDER / "banking77_readings.tsv").read_text(encoding="utf-8")
    found = readings()
    assert len(found) == len(text.splitlines()) - 1
    assert all(len(pair) == 2 for pair in found)
    assert any(found.values())
    assert not all(found.values())


def test_a_guard_turns_a_false_hit_into_a_miss():
    asked = corpus(("turn it on", "a", 0), ("turn it off", "b", 5))
    assert simulate(asked, DECISIONS["cosine"], 0.95, (1,)).false_share == 1.0
    assert simulate(asked, DECISIONS["guards"], 0.95, (1,)).hits == 0


def test_agreement_asks_for_more_where_few_words_agree():
    few = corpus(("lunch", "a", 0), ("Lunch?", "a", 20))
    many = corpus(
        ("sort a python list of dates", "a", 0), ("Sort a Python list of dates!", "a", 20)
    )
    assert simulate(few, DECISIONS["agreement"], 0.80, (1,)).hits == 0
    assert simulate(many, DECISIONS["agreement"], 0.80, (1,)).hits == 1


def test_areas_are_full_where_all_is_answered_rightly():
    found = areas(
        corpus(*[(f"same question{'!' * n}", "a", n) for n in range(8)]), DECISIONS["cosine"], 0
    )
    assert found.p_chr_auc == pytest.approx(1)
    assert found.crr == pytest.approx(1)


def test_contested_labels_are_left_out():
    rows = [(f"question {n}", "a", n / 10) for n in range(15)] + [("odd one", "b", 0.75)]
    asked = corpus(*rows)
    vectors = np.ones((len(rows), 2), np.float32) / np.sqrt(2)
    kept = uncontested(asked.questions, vectors)
    assert "b" not in {question.intent for question in kept}
    assert len(kept) == 15


def test_the_wilson_interval_is_the_published_one():
    low, high = wilson(8, 10)
    assert low == pytest.approx(0.4902, abs=1e-4)
    assert high == pytest.approx(0.9433, abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)
