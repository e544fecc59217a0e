"""Times to live are those promised, never longer."""

from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.layers import LAYER_RULES, Layer, shared_ttl_ms

DAY_SECONDS = 86_400


def test_the_times_to_live_are_seven_days_one_day_and_thirty_days() -> None:
    assert {layer: LAYER_RULES[layer].ttl_seconds / DAY_SECONDS for layer in Layer} == {
        Layer.EMBEDDING: 7,
        Layer.INFERENCE: 1,
        Layer.CHUNK: 30,
    }


def test_the_letters_of_the_layers_differ() -> None:
    assert len({rules.letter for rules in LAYER_RULES.values()}) == len(Layer)


@given(st.sampled_from(Layer), st.floats(0, 1, exclude_max=True))
def test_jitter_takes_away_a_tenth_at_most_and_never_adds(layer: Layer, draw: float) -> None:
    whole_ms = LAYER_RULES[layer].ttl_seconds * 1000
    assert 0.9 * whole_ms - 1 <= shared_ttl_ms(LAYER_RULES[layer], draw) <= whole_ms
