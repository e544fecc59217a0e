"""Times to live are those promised, never longer."""

from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.layers import LAYER_RULES, Layer, shared_ttl_ms

HOUR_SECONDS = 3_600


def test_the_times_to_live_are_those_of_the_layers() -> None:
    assert {layer: rules.ttl_seconds / HOUR_SECONDS for layer, rules in LAYER_RULES.items()} == {
        Layer.EMBEDDING: 7 * 24,
        Layer.INFERENCE: 24,
        Layer.CHUNK: 30 * 24,
        Layer.SEMANTIC: 24,
    }


def test_only_questions_are_kept_for_less_than_they_may_be_unless_told_otherwise() -> None:
    shorter = {
        layer: rules.default_ttl_seconds
        for layer, rules in LAYER_RULES.items()
        if rules.default_ttl_seconds != rules.ttl_seconds
    }
    assert shorter == {Layer.SEMANTIC: HOUR_SECONDS}


def test_only_what_a_key_decides_for_ever_is_served_without_news_of_invalidations() -> None:
    lasting = {layer for layer, rules in LAYER_RULES.items() if rules.content_addressed}
    assert lasting == {Layer.EMBEDDING, Layer.CHUNK}


def test_the_letters_of_the_layers_differ() -> None:
    assert len({rules.letter for rules in LAYER_RULES.values()}) == len(Layer)


@given(st.floats(0.001, 30 * 86_400), st.floats(0, 1, exclude_max=True))
def test_jitter_takes_away_a_tenth_at_most_and_never_adds(ttl_seconds: float, draw: float) -> None:
    whole_ms = ttl_seconds * 1000
    assert max(1, 0.9 * whole_ms - 1) <= shared_ttl_ms(ttl_seconds, draw) <= max(1, whole_ms)
