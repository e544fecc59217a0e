"""The two levels with what is needed to read and to write them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from services.cache.core.layers import Layer
from services.cache.core.local_level import LocalLevel
from services.cache.core.store_clock import StoreClock
from services.cache.epochs import Epochs
from services.cache.recorder import Recorder
from services.cache.shared_level import SharedLevel
from services.common.clock import Clock

__all__ = ["Levels"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """Everything a lookup or a store works with.

    Attributes:
        local: The local level of each layer that has one.
        shared: The shared level.
        epochs: What was invalidated.
        store_clock: The shared store's time.
        pepper: Secret of keys and signatures.
        clock: Time.
        draw: Gives uniform random numbers in [0, 1).
        recorder: Counts what happens.
    """

    local: Mapping[Layer, LocalLevel]
    shared: SharedLevel
    epochs: Epochs
    store_clock: StoreClock
    pepper: bytes
    clock: Clock
    draw: Callable[[], float]
    recorder: Recorder

    def store_now_ms(self) -> int:
        """Returns what the store's clock shows at least, milliseconds since the Unix epoch."""
        return self.store_clock.now_ms(self.clock.monotonic())
