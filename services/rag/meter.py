"""What the query uses that the running task works for."""

from contextvars import ContextVar
from dataclasses import dataclass, field

from services.rag.core.options import Mode
from services.rag.core.usage import Amounts

__all__ = ["RETRIEVE_MODE", "Meter", "current_meter", "current_mode", "mode_label"]

RETRIEVE_MODE = "retrieve"
"""What searches without an answer are counted under."""

_MODE_LABELS = frozenset({*(each.value for each in Mode), RETRIEVE_MODE})
_OTHER = "other"


@dataclass(slots=True)
class Meter:
    """What one query has used.

    Attributes:
        mode: How it is answered.
        amounts: What was used so far.
        generation_count: Texts that models were asked for.
    """

    mode: str
    amounts: Amounts = field(default_factory=Amounts)
    generation_count: int = 0


current_meter: ContextVar[Meter | None] = ContextVar("current_meter", default=None)
"""The query that the running task works for; None for work behind the scenes."""


def current_mode() -> str:
    """Returns how the query is answered that the running task works for; empty without one."""
    meter = current_meter.get()
    return meter.mode if meter is not None else ""


def mode_label(mode: str) -> str:
    """Returns a mode as metrics are labelled by it, of which there are few."""
    return mode if mode in _MODE_LABELS else _OTHER
