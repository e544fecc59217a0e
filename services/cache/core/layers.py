"""The layers of the cache: what is kept, and for how long."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

__all__ = ["LAYER_RULES", "Layer", "LayerRules", "shared_ttl_ms"]

_DAY_SECONDS = 86_400.0


class Layer(Enum):
    """One kind of value; the name is the label of its metrics."""

    EMBEDDING = "embedding"
    INFERENCE = "inference"
    CHUNK = "chunk"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRules:
    """What holds for all values of a layer.

    Attributes:
        letter: Marks the layer in Redis keys and frames; never given to another layer.
        ttl_seconds: Longest time a value is kept.
        local_ttl_seconds: Longest time the local level answers for a value. Short where another
            replica may replace the value, long where it can never change.
    """

    letter: bytes
    ttl_seconds: float
    local_ttl_seconds: float


LAYER_RULES: Mapping[Layer, LayerRules] = MappingProxyType(
    {
        Layer.EMBEDDING: LayerRules(
            letter=b"e", ttl_seconds=7 * _DAY_SECONDS, local_ttl_seconds=600.0
        ),
        Layer.INFERENCE: LayerRules(letter=b"i", ttl_seconds=_DAY_SECONDS, local_ttl_seconds=60.0),
        Layer.CHUNK: LayerRules(
            letter=b"c", ttl_seconds=30 * _DAY_SECONDS, local_ttl_seconds=600.0
        ),
    }
)


def shared_ttl_ms(rules: LayerRules, draw: float) -> int:
    """Returns how long one value is kept, so that values stored together do not expire together.

    Args:
        rules: Rules of its layer.
        draw: A uniform random number in [0, 1).

    Returns:
        Milliseconds, from 90 % of the layer's time up to all of it.
    """
    return int(rules.ttl_seconds * 1000 * (1.0 - 0.1 * draw))
