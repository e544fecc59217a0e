from services.cache.core.semantic.phrases import joined
from services.cache.core.semantic.reading import ANY, Gap, Reading
from services.cache.core.semantic.tokens import tokenize


def read(text):
    return Reading(joined(tokenize(text)))


def test_a_negation_is_noted_with_what_it_negates():
    assert read("which plans do not include tax").negations == ["contain"]
    assert read("not I log in").negations == [ANY]
    assert read("is not the card lost").negations == [ANY]


def test_a_quantifier_is_noted_with_what_it_counts():
    assert read("only admins see all files").quantifiers == [("only", "admin"), ("all", "file")]


def test_an_infinitive_is_no_direction():
    assert read("from Rome to Oslo").relations == [("from", "rome"), ("to", "oslo")]
    assert read("try to sleep").relations == []


def test_a_place_with_a_number_is_told_by_it():
    assert read("from gate 1 to gate 3").relations == [("from", "gate 1"), ("to", "gate 3")]


def test_segments_begin_at_prepositions_and_gaps_tell_what_stands_between():
    found = read("sort a list in Python")
    assert found.segments == [("", ["sort", "list"]), ("in", ["python"])]
    assert found.gaps == [Gap.NONE, Gap.FUNCTION_WORD, Gap.RELATION]
