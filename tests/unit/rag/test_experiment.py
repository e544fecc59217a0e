import json
from collections import Counter
from contextlib import suppress
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rag.core import experiment as module
from services.rag.core.conversation import Sampling
from services.rag.core.experiment import applied_to, parse_experiments
from services.rag.core.fusion import FusionMethod
from services.rag.core.options import Question, RerankPolicy, RetrievalOptions
from services.rag.core.reuse import configuration_fingerprint

QUESTION = Question(collection="docs", text="Why?")


def setting(*variants, name="rerank", **more):
    listed = [
        {"name": each, "share": share, "overrides": overrides}
        for each, share, overrides in variants
    ]
    return {"name": name, "variants": listed, **more}


def parsed(*experiments):
    return parse_experiments(json.dumps(experiments))


HALVES = setting(("off", 0.5, {"rerank": "off"}), ("on", 0.25, {"rerank": "on"}))


def variants(experiment, users, query_id="q"):
    found = [
        experiment.variant_for(tenant_id="acme", user_id=user, query_id=query_id) for user in users
    ]
    return [each and each.name for each in found]


def test_units_are_shared_out_as_set():
    (experiment,) = parsed(HALVES)
    counts = Counter(variants(experiment, [f"user-{number}" for number in range(4000)]))
    assert counts["off"] == pytest.approx(2000, abs=160)
    assert counts["on"] == pytest.approx(1000, abs=140)
    assert counts[None] == pytest.approx(1000, abs=140)


def test_a_user_has_the_same_variant_each_time_and_everywhere():
    (first,), (second,) = parsed(HALVES), parsed(HALVES)
    users = [f"user-{number}" for number in range(100)]
    assert variants(first, users, "q1") == variants(second, users, "q2")


def test_experiments_share_out_independently_of_each_other():
    first, second = parsed(
        setting(("a", 0.5, {}), ("b", 0.5, {}), name="first"),
        setting(("a", 0.5, {}), ("b", 0.5, {}), name="second"),
    )
    users = [f"user-{number}" for number in range(4000)]
    pairs = zip(variants(first, users), variants(second, users), strict=True)
    assert all(count == pytest.approx(1000, abs=150) for count in Counter(pairs).values())


def test_where_nobody_is_known_each_query_is_a_unit():
    (experiment,) = parsed(HALVES)
    found = {variants(experiment, [""], f"q{number}")[0] for number in range(50)}
    assert found == {"off", "on", None}
    (by_tenant,) = parsed({**HALVES, "unit": "tenant"})
    assert len({variants(by_tenant, ["ann"], f"q{number}")[0] for number in range(50)}) == 1


def test_a_variant_changes_what_the_caller_has_left_open():
    overrides = {"rerank": RerankPolicy.OFF, "passage_count": 3, "temperature": 0.5, "model": "m"}
    chosen = Question(
        collection="docs",
        text="Why?",
        retrieval=RetrievalOptions(passage_count=20),
        sampling=Sampling(temperature=0.1),
    )
    changed = applied_to(chosen, overrides)
    assert changed.retrieval.rerank is RerankPolicy.OFF
    assert changed.retrieval.passage_count == 20
    assert changed.sampling.temperature == 0.1
    assert changed.model == "m"
    assert applied_to(QUESTION, {}) is QUESTION


def test_answers_of_variants_are_kept_apart_in_the_cache():
    other = applied_to(QUESTION, {"rerank": RerankPolicy.OFF})
    first, second = (configuration_fingerprint(each, each.sampling) for each in (QUESTION, other))
    assert first != second


def test_values_are_read_as_what_they_are():
    (experiment,) = parsed(
        setting(
            ("a", 1, {"fusion": "reciprocal_rank", "merge_neighbors": False, "candidate_count": 50})
        )
    )
    assert dict(experiment.variants[0].overrides) == {
        "fusion": FusionMethod.RECIPROCAL_RANK,
        "merge_neighbors": False,
        "candidate_count": 50,
    }


def test_every_option_that_may_be_changed_exists():
    known = {each.name for kind in (Question, RetrievalOptions, Sampling) for each in fields(kind)}
    assert known.issuperset(module._READERS)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("{", "JSON"),
        ("{}", "a JSON list"),
        ("[1]", r"\[0\] must be an object"),
        (json.dumps([setting()]), "must be a list of 1 to 8"),
        (json.dumps([setting(("a", 0.7, {}), ("b", 0.4, {}))]), "more than 1 together"),
        (json.dumps([setting(("a", 0.5, {}), ("a", 0.4, {}))]), "'a' is there twice"),
        (json.dumps([HALVES, HALVES]), "'rerank' is there twice"),
        (json.dumps([HALVES, {**HALVES, "name": "other"}]), "changed by two experiments"),
        (json.dumps([setting(("a", True, {}))]), "share must be a number"),
        (json.dumps([setting(("a", 1, {"mode": "deep"}))]), "mode is none of"),
        (json.dumps([setting(("a", 1, {"passage_count": True}))]), "whole number from 1 to 50"),
        (json.dumps([setting(("a", 1, {"rerank": []}))]), "must be one of"),
        (json.dumps([setting(("A b", 1, {}))]), "characters of a-z"),
        (json.dumps([setting(("a", 1, {}), unit="day")]), "unit must be"),
        (json.dumps([setting(("a", 1, {}), more=1)]), "more is not known"),
        ("[" * 100_000, "JSON"),
    ],
)
def test_what_breaks_a_rule_is_told(value, problem):
    with pytest.raises(ValueError, match=problem):
        parse_experiments(value)


def test_all_problems_are_told_at_once():
    with pytest.raises(ValueError, match="share") as told:
        parsed(setting(("a", 0, {"passage_count": 0, "nothing": 1}), unit="day"))
    assert len(str(told.value).split("; ")) == 4


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "unit", "variants", "share", "overrides", "rerank"]), inner
        )
    ),
)


@given(json_values)
def test_any_json_is_read_or_refused(value):
    with suppress(ValueError):
        parse_experiments(json.dumps(value))
