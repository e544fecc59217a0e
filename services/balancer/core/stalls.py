"""Slots that Ollama has lost, and how a model gets them back.

A client that goes away while a token is on its way can leave Ollama's generator blocked for ever
with its slot (ollama #17131). The model then answers nobody, while every control endpoint stays
green. It shows by the age of what is in flight, and unloading the model cures it.
"""

from dataclasses import dataclass
from enum import Enum

__all__ = [
    "LIMITS",
    "Cure",
    "CureAction",
    "CureEvent",
    "CureStep",
    "StallLimits",
    "action_of",
    "after_event",
    "expires_at",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class StallLimits:
    """How long what may take, in seconds unless said otherwise.

    Attributes:
        load: What loading a model may take.
        suspect_ratio: Share of a limit from which a request is suspect, [0, 1].
        probe: How long a probe of one token may take.
        unload: How long a model may stay loaded after it was told to go.
    """

    load: float = 300.0
    suspect_ratio: float = 0.5
    probe: float = 10.0
    unload: float = 30.0


LIMITS = StallLimits()


class CureStep(Enum):
    """How far the cure of a model on a backend has come; the values serve as labels of metrics."""

    SUSPECT = "suspect"
    """To be probed."""
    LEAKED = "leaked"
    """The probe hung too: to be unloaded, with nothing of ours waiting there."""
    UNLOADING = "unloading"
    """Told to go, not gone yet."""
    RELOADING = "reloading"
    """Gone, to be loaded again."""
    CLEARED = "cleared"
    """A false alarm."""
    CURED = "cured"
    """No slot is lost any more: the model is loaded again, or at least unloaded."""
    HUNG = "hung"
    """It does not go: only a restart of the server helps."""

    @property
    def is_outcome(self) -> bool:
        """Whether this is what comes of a suspicion."""
        return self in (CureStep.CLEARED, CureStep.CURED, CureStep.HUNG)


class CureEvent(Enum):
    """What has happened in the course of a cure."""

    PROBE_ANSWERED = "probe_answered"
    """With a token or with an error: nothing hangs."""
    PROBE_TIMED_OUT = "probe_timed_out"
    UNLOAD_ASKED = "unload_asked"
    GONE = "gone"
    """The server no longer lists the model as loaded; after a restart it does not either."""
    LOADED = "loaded"
    LOAD_FAILED = "load_failed"
    TIME_PASSED = "time_passed"
    """Nothing; to be told when the step's time is over."""


class CureAction(Enum):
    """What is to be done next."""

    PROBE = "probe"
    """Ask for one token."""
    UNLOAD = "unload"
    """End our requests there, then ask for nothing with `keep_alive` 0."""
    AWAIT_GONE = "await_gone"
    """Watch the list of loaded models."""
    LOAD = "load"
    """Load it under a patience of its own."""
    NOTHING = "nothing"
    """It is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cure:
    """The cure of a model on a backend.

    Attributes:
        step: How far it has come.
        since: When that step began, seconds of the monotonic clock.
    """

    step: CureStep
    since: float


_ACTIONS = {
    CureStep.SUSPECT: CureAction.PROBE,
    CureStep.LEAKED: CureAction.UNLOAD,
    CureStep.UNLOADING: CureAction.AWAIT_GONE,
    CureStep.RELOADING: CureAction.LOAD,
    CureStep.HUNG: CureAction.AWAIT_GONE,
    CureStep.CLEARED: CureAction.NOTHING,
    CureStep.CURED: CureAction.NOTHING,
}
# What an event leads to where it means something. A model that is gone is gone whoever has seen
# to that, be it a restart of the server that seemed to hang.
_STEPS = {
    (CureStep.SUSPECT, CureEvent.PROBE_ANSWERED): CureStep.CLEARED,
    (CureStep.SUSPECT, CureEvent.PROBE_TIMED_OUT): CureStep.LEAKED,
    (CureStep.SUSPECT, CureEvent.GONE): CureStep.RELOADING,
    (CureStep.LEAKED, CureEvent.UNLOAD_ASKED): CureStep.UNLOADING,
    (CureStep.LEAKED, CureEvent.GONE): CureStep.RELOADING,
    (CureStep.UNLOADING, CureEvent.GONE): CureStep.RELOADING,
    (CureStep.RELOADING, CureEvent.LOADED): CureStep.CURED,
    (CureStep.RELOADING, CureEvent.LOAD_FAILED): CureStep.CURED,
    (CureStep.HUNG, CureEvent.GONE): CureStep.RELOADING,
}
_STEPS_WHEN_LATE = {
    CureStep.SUSPECT: CureStep.LEAKED,
    CureStep.LEAKED: CureStep.HUNG,
    CureStep.UNLOADING: CureStep.HUNG,
    CureStep.RELOADING: CureStep.HUNG,
}


def action_of(cure: Cure) -> CureAction:
    """Returns what is to be done next."""
    return _ACTIONS[cure.step]


def expires_at(cure: Cure, limits: StallLimits = LIMITS) -> float | None:
    """Returns when the step will have taken too long; None where it may take for ever.

    Args:
        cure: The cure.
        limits: How long what may take.
    """
    durations = {
        CureStep.SUSPECT: limits.probe,
        CureStep.LEAKED: limits.unload,
        CureStep.UNLOADING: limits.unload,
        CureStep.RELOADING: limits.load,
    }
    duration = durations.get(cure.step)
    return None if duration is None else cure.since + duration


def after_event(cure: Cure, event: CureEvent, now: float, limits: StallLimits = LIMITS) -> Cure:
    """Returns the cure after an event; the same where the event means nothing to its step.

    Args:
        cure: The cure before.
        event: What has happened.
        now: Seconds of the monotonic clock.
        limits: How long what may take.
    """
    step = _STEPS.get((cure.step, event))
    limit = expires_at(cure, limits)
    if step is None and limit is not None and now >= limit:
        step = _STEPS_WHEN_LATE[cure.step]
    return cure if step is None else Cure(step=step, since=now)
