"""What a request would cost, term by term in seconds of its own time.

    cost = drain + load + unread prompt / prefill rate + weight * output / decode rate + risk

All terms are seconds of the same request, so that adding them needs no weights of unlike units.
The terms and the reasoning: Preble (ICLR'25) for the cost of a cache miss beside that of waiting;
Prequal (NSDI'24) against adding load to latency.
"""

from dataclasses import dataclass

__all__ = ["Exclusion", "Terms"]


class Exclusion:
    """Why a backend is no candidate; the values serve as labels of metrics."""

    MODEL_ABSENT = "model_absent"
    OTHER_DIGEST = "other_digest"
    CAPABILITY_MISSING = "capability_missing"
    UNHEALTHY = "unhealthy"
    DRAINED = "drained"
    TRIED = "tried"
    NO_ROOM = "no_room"


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of a cost, in seconds.

    Attributes:
        drain: Until a slot is free.
        load: For loading the model, unloading others for it included.
        prefill: For reading what of the prompt is not remembered.
        decode: For generating, unweighted.
        weight: How much the caller minds `decode`, [0, 1].
        risk: For failures to be feared, for having returned lately, and for those who will miss
            the models unloaded.
    """

    drain: float
    load: float
    prefill: float
    decode: float
    weight: float
    risk: float

    @property
    def first_token(self) -> float:
        """Seconds until the first token."""
        return self.drain + self.load + self.prefill

    @property
    def total(self) -> float:
        """Seconds until the end."""
        return self.drain + self.load + self.prefill + self.decode

    @property
    def cost(self) -> float:
        """What is compared."""
        waiting = self.drain + self.load + self.prefill
        return waiting + self.weight * self.decode + self.risk
