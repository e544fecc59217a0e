"""The layers of the cache: what is kept, and for how long."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

__all__ = ["LAYER_RULES", "Layer", "LayerRules", "shared_ttl_ms"]

_HOUR_SECONDS = 3_600.0
_DAY_SECONDS = 24 * _HOUR_SECONDS


class Layer(Enum):
    """One kind of value; the name is the label of its metrics."""

    EMBEDDING = "embedding"
    INFERENCE = "inference"
    CHUNK = "chunk"
    SEMANTIC = "semantic"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRules:
    """What holds for all values of a layer.

    Attributes:
        letter: Marks the layer in frames; never given to another layer.
        ttl_seconds: Longest time a value is kept.
        default_ttl_seconds: How long a value is kept where nobody asks for less.
        local_ttl_seconds: Longest time the local level answers for a value. Short where another
            replica may replace the value, long where it can never change.
        content_addressed: Whether the key alone decides the value for ever. Such values are served
            locally even where it cannot be known whether they have been invalidated.
        compressible: Whether payloads are text, which compression makes smaller; vectors are not.
    """

    letter: bytes
    ttl_seconds: float
    default_ttl_seconds: float
    local_ttl_seconds: float
    content_addressed: bool
    compressible: bool


LAYER_RULES: Mapping[Layer, LayerRules] = MappingProxyType(
    {
        Layer.EMBEDDING: LayerRules(
            letter=b"e",
            ttl_seconds=7 * _DAY_SECONDS,
            default_ttl_seconds=7 * _DAY_SECONDS,
            local_ttl_seconds=600.0,
            content_addressed=True,
            compressible=False,
        ),
        Layer.INFERENCE: LayerRules(
            letter=b"i",
            ttl_seconds=_DAY_SECONDS,
            default_ttl_seconds=_DAY_SECONDS,
            local_ttl_seconds=60.0,
            content_addressed=False,
            compressible=True,
        ),
        Layer.CHUNK: LayerRules(
            letter=b"c",
            ttl_seconds=30 * _DAY_SECONDS,
            default_ttl_seconds=30 * _DAY_SECONDS,
            local_ttl_seconds=600.0,
            content_addressed=True,
            compressible=True,
        ),
        Layer.SEMANTIC: LayerRules(
            letter=b"s",
            ttl_seconds=_DAY_SECONDS,
            default_ttl_seconds=_HOUR_SECONDS,
            local_ttl_seconds=60.0,
            content_addressed=False,
            compressible=True,
        ),
    }
)


def shared_ttl_ms(ttl_seconds: float, draw: float) -> int:
    """Returns how long one value is kept, so that values stored together do not expire together.

    Args:
        ttl_seconds: Longest time, above 0.
        draw: A uniform random number in [0, 1).

    Returns:
        Milliseconds, at least 1: from 90 % of the longest time up to all of it.
    """
    return max(1, int(ttl_seconds * 1000 * (1.0 - 0.1 * draw)))
