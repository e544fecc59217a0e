"""How the shared store does: what calls say of it, what that means for its use, and who is told."""

import logging
from dataclasses import dataclass

from services.cache.core.breaker import Breaker, BreakerPolicy, Phase
from services.cache.ports import StoreFailure, StoreRefusal
from services.cache.recorder import Recorder
from services.common.clock import Clock

__all__ = ["StoreCondition", "StoreHealth"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreCondition:
    """How the shared store has been.

    Attributes:
        available: Whether it is in use.
        writable: Whether values are written to it.
        phase: How far it is used.
        failure_count: Failed and refused calls.
        outage_count: Times it was taken out of use.
        changed_at: When `phase` last changed, seconds since the Unix epoch; None if never.
        last_failure: What the last failure said; empty where there was none.
    """

    available: bool = True
    writable: bool = True
    phase: Phase = Phase.NORMAL
    failure_count: int = 0
    outage_count: int = 0
    changed_at: float | None = None
    last_failure: str = ""


class StoreHealth:
    """What is known of the store; times are seconds on the clock's monotonic scale.

    Args:
        policy: When the store is used how far.
        clock: Time.
        recorder: Is told of failures and changes.

    Attributes:
        refusing: Whether the store, as far as is known, lets nothing be written.
    """

    def __init__(self, *, policy: BreakerPolicy, clock: Clock, recorder: Recorder) -> None:
        self._breaker = Breaker(policy)
        self._clock = clock
        self._recorder = recorder
        self.refusing = False
        self._known_phase = Phase.NORMAL
        self._failure_count = 0
        self._outage_count = 0
        self._changed_at: float | None = None
        self._last_failure = ""
        recorder.store_available(available=True)
        recorder.store_phase(Phase.NORMAL)

    @property
    def condition(self) -> StoreCondition:
        """How the store has been."""
        return StoreCondition(
            available=self.available,
            writable=self.writable,
            phase=self.phase,
            failure_count=self._failure_count,
            outage_count=self._outage_count,
            changed_at=self._changed_at,
            last_failure=self._last_failure,
        )

    @property
    def phase(self) -> Phase:
        """How far the store is used."""
        return self._breaker.phase

    @property
    def available(self) -> bool:
        """Whether the store is in use."""
        return self._breaker.admits_calls

    @property
    def writable(self) -> bool:
        """Whether the store takes values: in use, not slow, and not known to refuse them."""
        return self.phase is Phase.NORMAL and not self.refusing

    @property
    def suspicious(self) -> bool:
        """Whether the last call failed."""
        return self._breaker.failure_count > 0

    @property
    def retry_at(self) -> float:
        """When a store out of use is probed next."""
        return self._breaker.retry_at

    def succeeded(self, started: float | None) -> None:
        """Notes a call that was answered.

        Args:
            started: When it was begun; None where its duration says nothing about the store.
        """
        now = self._clock.monotonic()
        self._breaker.succeeded(now, None if started is None else now - started)
        self._tell()

    def refused(self, refusal: StoreRefusal, started: float) -> None:
        """Notes a write that was refused: such a store may still be read, and has answered."""
        self._count(refusal)
        self.refusing = True
        self.succeeded(started)

    def failed(self, failure: StoreFailure, started: float, *, in_haste: bool) -> None:
        """Notes a call that failed.

        Args:
            failure: What happened.
            started: When it was begun.
            in_haste: Whether the caller had less patience than is usual, so that its failure says
                nothing about the store.
        """
        self._count(failure)
        if not in_haste:
            now = self._clock.monotonic()
            self._breaker.failed(now, now - started)
            self._tell()

    def probe_due(self) -> bool:
        """Returns whether it is time to find out whether the store is back."""
        return self._breaker.probe_due(self._clock.monotonic())

    def probe_succeeded(self) -> None:
        """Notes that a store out of use answers again."""
        self._breaker.probe_succeeded()
        self._tell()

    def probe_failed(self, failure: StoreFailure) -> None:
        """Notes that a store out of use is still away, or that recovery failed."""
        self._count(failure)
        self._breaker.probe_failed(self._clock.monotonic())
        self._tell()

    def recovered(self) -> None:
        """Notes that the store may be used again."""
        self.refusing = False
        self._breaker.recovered()
        self._tell()

    def _count(self, failure: StoreFailure) -> None:
        self._failure_count += 1
        self._last_failure = failure.cause
        self._recorder.store_failed()

    def _tell(self) -> None:
        """Tells of a change of phase, where there was one."""
        before, phase = self._known_phase, self.phase
        if phase is before:
            return
        self._known_phase = phase
        self._changed_at = self._clock.now()
        self._recorder.store_phase(phase)
        self._recorder.store_available(available=self.available)
        if phase is Phase.OPEN:
            self._outage_count += before is not Phase.RECOVERING
            _logger.warning("shared store is out of use", extra={"cause": self._last_failure})
        elif phase is Phase.SLOW:
            _logger.warning("shared store is slow; nothing is written to it")
        elif phase is Phase.NORMAL:
            _logger.info("shared store is in use again")
