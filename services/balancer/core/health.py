"""Whether a backend takes requests: a state machine fed by checks and by requests."""

from dataclasses import dataclass, replace
from enum import Enum

__all__ = ["Health", "Signal", "after", "seconds_until_check"]

# A lost connection is proof; anything else may be the fault of one request.
_FAILURES_UNTIL_OUT = 3
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_LONGEST_PAUSE_LEVEL = 6


class Signal(Enum):
    """What was learned of a backend."""

    CHECK_SUCCEEDED = "check_succeeded"
    CHECK_FAILED = "check_failed"
    REQUEST_SUCCEEDED = "request_succeeded"
    REQUEST_FAILED = "request_failed"
    CHECK_CONNECTION_LOST = "check_connection_lost"
    REQUEST_CONNECTION_LOST = "request_connection_lost"


_CHECK_FAILURES = (Signal.CHECK_FAILED, Signal.CHECK_CONNECTION_LOST)
_LOST = (Signal.CHECK_CONNECTION_LOST, Signal.REQUEST_CONNECTION_LOST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The state of one backend.

    Attributes:
        checked: Whether anything is known of it yet.
        healthy: Whether it takes requests.
        consecutive_failure_count: Failures since the last success.
        last_failure: What the last failure said; empty after a success.
        pause_level: How far the pause between checks has grown: 0, or 1 for the first pause.
    """

    checked: bool = False
    healthy: bool = False
    consecutive_failure_count: int = 0
    last_failure: str = ""
    pause_level: int = 0


def after(health: Health, signal: Signal, message: str = "") -> Health:
    """Returns the state after a signal.

    A success brings a backend back at once. A lost connection takes it out at once, other
    failures do so when three came in a row. Each time it goes out, and each check that fails
    meanwhile, doubles the pause until the next check; a success of a request, or of a check of a
    backend that was in already, starts over. A backend that passes its checks but fails its
    requests is therefore tried less and less often.

    Args:
        health: The state before.
        signal: What was learned.
        message: What a failure said.
    """
    if signal is Signal.REQUEST_SUCCEEDED:
        return Health(checked=True, healthy=True)
    if signal is Signal.CHECK_SUCCEEDED:
        level = 0 if health.healthy else health.pause_level
        return Health(checked=True, healthy=True, pause_level=level)
    count = health.consecutive_failure_count + 1
    healthy = health.healthy and signal not in _LOST and count < _FAILURES_UNTIL_OUT
    # Many requests may fail at once when a backend goes; only the first of them lengthens the
    # pause, or recovery would be the slower the busier the backend was.
    goes_out = not healthy and (health.healthy or not health.checked)
    grows = goes_out or (not healthy and signal in _CHECK_FAILURES)
    return replace(
        health,
        checked=True,
        healthy=healthy,
        consecutive_failure_count=count,
        last_failure=message,
        pause_level=min(_LONGEST_PAUSE_LEVEL, health.pause_level + grows),
    )


def seconds_until_check(health: Health, interval_seconds: float) -> float:
    """Returns how long to wait with the next check.

    Args:
        health: The state now.
        interval_seconds: Time between the checks of a backend without failures.
    """
    if health.healthy and health.consecutive_failure_count == 0:
        return interval_seconds
    if health.healthy:
        return min(_FIRST_PAUSE_SECONDS, interval_seconds)
    pause = _FIRST_PAUSE_SECONDS * 2.0 ** max(0, health.pause_level - 1)
    return min(pause, _LONGEST_PAUSE_SECONDS, interval_seconds)
