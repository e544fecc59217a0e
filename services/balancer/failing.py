"""What follows for a backend from an attempt that failed there, or that had to wait there."""

from collections.abc import Callable

from services.balancer.backend import Backend, ModelState, Occupancy
from services.balancer.core.failures import AttemptFailed, FailureKind
from services.balancer.core.snapshot import Residency
from services.balancer.core.standing import Signal
from services.balancer.core.starts import Start, Starts
from services.balancer.fleet import Fleet

__all__ = ["FailureEffects"]

_SIGNALS = {
    FailureKind.CONNECTION: Signal.REQUEST_CONNECTION_LOST,
    FailureKind.TIMEOUT: Signal.REQUEST_TIMED_OUT,
    FailureKind.STALLED: Signal.STALLED,
    FailureKind.BUSY: Signal.BUSY,
    FailureKind.SERVER_ERROR: Signal.REQUEST_FAILED,
    FailureKind.BROKEN_REPLY: Signal.REQUEST_FAILED,
}


class FailureEffects:
    """Tells the fleet, and whoever looks after stuck slots.

    Args:
        fleet: The backends.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._starts = Starts()
        self.suspect: Callable[[Backend, ModelState], None] = _ignore
        """Called when a model that is loaded does not answer; set by whoever cures that."""
        self.look: Callable[[Backend], None] = _ignore
        """Called when what a backend has is in doubt; set by whoever polls it."""

    def note_start(
        self, occupancy: Occupancy, predicted_seconds: float, limit_seconds: float
    ) -> None:
        """Notes the first token of a request, which may have come late for want of a slot.

        Args:
            occupancy: The request.
            predicted_seconds: After how long the token was predicted to come.
            limit_seconds: After how long it would have been too late.
        """
        model, began_at = occupancy.model, occupancy.began_at
        if model.slot_count == 1 or model.answers_fewer or model.residency is not Residency.WARM:
            return
        now = occupancy.progressed_at
        start = Start(
            slot_count=model.slot_count,
            streaming_count=sum(
                each.first_token_at is not None for each in model.occupancies.values()
            ),
            after_an_end=self._fleet.has_ended_beside(occupancy),
            seconds=now - began_at,
            predicted_seconds=predicted_seconds,
            limit_seconds=limit_seconds,
        )
        if self._starts.note(occupancy.backend.id, model.placement_key, start, now):
            self.suspect(occupancy.backend, model)

    def note(
        self, backend: Backend, model: ModelState, failure: AttemptFailed, began_at: float
    ) -> None:
        """Notes that an attempt failed.

        Args:
            backend: Where.
            model: The model there.
            failure: How.
            began_at: When it was sent, monotonic seconds.
        """
        kind = failure.kind
        if kind is FailureKind.REJECTED:
            return
        backend.failure_count += 1
        if kind is FailureKind.MODEL_ABSENT:
            if backend.models is not None:
                kept = backend.models.items()
                backend.models = {key: each for key, each in kept if each is not model}
                backend.view = None
            self.look(backend)
            return
        self._fleet.signal(backend, _SIGNALS[kind], failure.summary, began_at=began_at)
        if kind in (FailureKind.TIMEOUT, FailureKind.STALLED):
            if model.residency is Residency.WARM:
                self.suspect(backend, model)
        else:
            # A runner that has died, or a server that was restarted, has forgotten its models.
            self.look(backend)


def _ignore(*_: object) -> None:
    pass
