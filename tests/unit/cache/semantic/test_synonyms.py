from services.cache.core.semantic.inflection import base_form
from services.cache.core.semantic.synonyms import PHRASES, standing_for


def test_a_group_has_one_word_that_stands_for_it():
    forms = ["enable", "activate", "activation", "turn_on"]
    assert len({standing_for("_".join(map(base_form, form.split("_")))) for form in forms}) == 1


def test_standing_for_a_group_is_final():
    leaders = {name for rests in PHRASES.values() for _, name in rests}
    assert leaders
    assert all(standing_for(leader) == leader for leader in leaders)


def test_longer_phrases_are_tried_first():
    for rests in PHRASES.values():
        lengths = [len(rest) for rest, _ in rests]
        assert lengths == sorted(lengths, reverse=True)


def test_another_word_stands_for_itself():
    assert standing_for("xylophone") == "xylophone"
