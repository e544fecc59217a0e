"""Whether a backend takes requests: a state machine fed by requests, checks and canaries.

    UNKNOWN --check--> CLOSED --failures--> EJECTED --time, check--> HALF_OPEN
                          ^                    ^                        |
                          |                    +---- canary failed -----+
                          +--30 s-- RETURNING <----- canary succeeded --+

Whoever runs it checks a backend when `next_probe_at` says so, and sends it a canary, one at a time,
while `needs_canary` says so: one token of a loaded model, or one text to embed.
"""

from dataclasses import dataclass, replace
from math import exp, ldexp

from services.balancer.core.decay import DecayedMean
from services.balancer.core.standing_states import RULES, Rules, Signal, Standing, State
from services.balancer.core.windows import EventWindow

__all__ = [
    "RULES",
    "Rules",
    "Signal",
    "Standing",
    "State",
    "after",
    "allowed_out",
    "failure_ratio",
    "needs_canary",
    "next_probe_at",
    "surcharge_seconds",
    "takes_requests",
]

_LONGEST_PAUSE_LEVEL = 16
# One failure says little: it takes two among few successes to make a difference.
_FAILURE_PRIOR_WEIGHT = 5.0
_IN = (State.CLOSED, State.RETURNING)
# What a lost slot or a hung engine looks like.
_SILENCES = (Signal.REQUEST_TIMED_OUT, Signal.STALLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moment:
    now: float
    jitter: float
    message: str
    began_at: float | None
    rules: Rules


def after(
    standing: Standing,
    signal: Signal,
    now: float,
    *,
    jitter: float,
    message: str = "",
    began_at: float | None = None,
    rules: Rules = RULES,
) -> Standing:
    """Returns the standing after a signal.

    Args:
        standing: The standing before.
        signal: What was learned.
        now: Seconds of the monotonic clock.
        jitter: A random number, [-1, 1]; spreads the returns of backends that went out together.
        message: What a failure said.
        began_at: When the request that the signal is about was sent. With it, failures of requests
            from before a backend came back are not held against it, and the success of one sent
            to a backend that is out (for want of any other) brings it back.
        rules: When a backend goes out and how it comes back.
    """
    moment = _Moment(
        now=now,
        jitter=jitter,
        message=message,
        began_at=began_at,
        rules=rules,
    )
    if signal in (Signal.DRAINED, Signal.RESUMED):
        return replace(standing, drained=signal is Signal.DRAINED)
    if standing.health is State.RETURNING and now >= standing.since + rules.slow_start_seconds:
        standing = replace(standing, health=State.CLOSED)
    if signal is Signal.CHECK_SUCCEEDED:
        return _after_good_check(standing, moment)
    if signal in (Signal.CHECK_FAILED, Signal.CHECK_CONNECTION_LOST):
        return _after_bad_check(standing, moment, lost=signal is Signal.CHECK_CONNECTION_LOST)
    if signal in (Signal.CANARY_SUCCEEDED, Signal.CANARY_SKIPPED):
        return _after_good_canary(standing, moment)
    if signal is Signal.CANARY_FAILED:
        return _after_bad_canary(standing, moment)
    if signal is Signal.REQUEST_SUCCEEDED:
        return _after_success(standing, moment)
    if signal is Signal.BUSY:
        return _after_busy(standing, moment)
    return _after_failure(standing, signal, moment)


def _after_good_check(standing: Standing, moment: _Moment) -> Standing:
    now = moment.now
    if standing.health is State.UNKNOWN:
        return replace(standing, health=State.CLOSED, since=now, tried_at=now, probed_at=now)
    standing = replace(standing, missed_check_count=0, probed_at=now)
    if standing.health is State.EJECTED and (standing.down or now >= standing.ejected_until):
        return replace(standing, health=State.HALF_OPEN, probe_level=1)
    if _is_in(standing) and not standing.suspected:
        return replace(standing, last_failure="", probe_level=0)
    return replace(standing, probe_level=_next_level(standing))


def _after_bad_check(standing: Standing, moment: _Moment, *, lost: bool) -> Standing:
    now = moment.now
    level = _next_level(standing) if not _is_in(standing) or standing.suspected else 1
    standing = replace(
        _with_failure(standing, moment),
        missed_check_count=standing.missed_check_count + 1,
        probed_at=now,
        probe_level=level,
    )
    if standing.health is State.UNKNOWN:
        # It was never in: nothing to be punished for, its first good check will do.
        return replace(standing, health=State.EJECTED, since=now, down=True)
    if _is_in(standing):
        if lost:
            return _ejected(standing, moment, down=True)
        missed = standing.missed_check_count >= moment.rules.missed_check_limit
        return _ejected(standing, moment) if missed else standing
    return replace(standing, health=State.EJECTED, down=standing.down or lost)


def _after_good_canary(standing: Standing, moment: _Moment) -> Standing:
    if standing.health is State.HALF_OPEN:
        return _returned(standing, moment)
    return replace(standing, doubted=False, tried_at=moment.now)


def _after_bad_canary(standing: Standing, moment: _Moment) -> Standing:
    was_doubted = standing.doubted
    standing = replace(_with_failure(standing, moment), tried_at=moment.now)
    if standing.health is State.HALF_OPEN:
        return _ejected(standing, moment)
    if not _is_in(standing):
        return standing
    standing = replace(
        _suspected(standing, moment), failure_streak=standing.failure_streak + 1, doubted=True
    )
    return _ejected(standing, moment) if was_doubted else standing


def _after_success(standing: Standing, moment: _Moment) -> Standing:
    now = moment.now
    failure_mean = standing.failure_mean.add(0.0, now)
    if _is_in(standing):
        return replace(
            standing,
            failure_streak=0,
            missed_check_count=0,
            last_failure="",
            doubted=False,
            tried_at=now,
            probe_level=0,
            attempts=standing.attempts.add(now),
            failure_mean=failure_mean,
        )
    standing = replace(standing, failure_mean=failure_mean)
    was_sent_since = moment.began_at is not None and moment.began_at >= standing.since
    return _returned(standing, moment) if was_sent_since else standing


def _after_busy(standing: Standing, moment: _Moment) -> Standing:
    standing = replace(standing, busies=standing.busies.add(moment.now), busy_at=moment.now)
    if standing.busies.count(moment.now) >= moment.rules.busy_limit:
        return _after_failure(standing, Signal.BUSY, moment)
    return replace(standing, failure_mean=standing.failure_mean.add(1.0, moment.now))


def _after_failure(standing: Standing, signal: Signal, moment: _Moment) -> Standing:
    now, rules = moment.now, moment.rules
    if _is_in(standing) and moment.began_at is not None and moment.began_at < standing.since:
        return standing
    suspected = _suspected(standing, moment)
    standing = replace(
        _with_failure(suspected, moment), failure_mean=standing.failure_mean.add(1.0, now)
    )
    if not _is_in(standing):
        return standing
    standing = replace(
        standing,
        failure_streak=standing.failure_streak + 1,
        attempts=standing.attempts.add(now),
        failures=standing.failures.add(now),
        doubted=standing.doubted or signal in _SILENCES,
    )
    if signal is Signal.REQUEST_CONNECTION_LOST:
        # Checked at once: before it can have been started again, if it has gone.
        first = standing.ejection_count == 0
        return replace(_ejected(standing, moment, down=first), probe_level=0)
    goes_out = standing.failure_streak >= rules.failure_limit or _fails_share(standing, now, rules)
    return _ejected(standing, moment) if goes_out else standing


def _fails_share(standing: Standing, now: float, rules: Rules) -> bool:
    count = standing.attempts.count(now)
    succeeded = count - standing.failures.count(now)
    return count >= rules.least_attempt_count and succeeded < rules.lowest_success_ratio * count


def _with_failure(standing: Standing, moment: _Moment) -> Standing:
    """Notes what a failure said, and first forgives what is long past."""
    calm_seconds = moment.now - standing.failed_at
    count = standing.ejection_count
    if count:
        count >>= int(calm_seconds / moment.rules.forgiveness_seconds)
    return replace(
        standing, ejection_count=count, last_failure=moment.message, failed_at=moment.now
    )


def _suspected(standing: Standing, moment: _Moment) -> Standing:
    """Has a backend that takes requests checked soon, unless that is so already."""
    if standing.suspected or not _is_in(standing):
        return standing
    return replace(standing, probed_at=moment.now, probe_level=1)


def _ejected(standing: Standing, moment: _Moment, *, down: bool = False) -> Standing:
    rules = moment.rules
    level = min(standing.ejection_count, _LONGEST_PAUSE_LEVEL)
    pause = min(ldexp(rules.ejection_seconds, level), rules.longest_ejection_seconds)
    pause *= 1.0 + rules.ejection_jitter_ratio * moment.jitter
    return replace(
        standing,
        health=State.EJECTED,
        since=moment.now,
        ejected_until=moment.now + pause,
        down=down,
        ejection_count=standing.ejection_count + 1,
        doubted=False,
        probed_at=moment.now,
        probe_level=1,
    )


def _returned(standing: Standing, moment: _Moment) -> Standing:
    # What it did before is dealt with: the surcharge is for the doubt that is left. Held against it
    # on top of that, it could stay without the requests that would show otherwise.
    window = EventWindow(span_seconds=moment.rules.window_seconds)
    return replace(
        standing,
        health=State.RETURNING,
        since=moment.now,
        down=False,
        failure_streak=0,
        missed_check_count=0,
        last_failure="",
        doubted=False,
        tried_at=moment.now,
        probed_at=moment.now,
        probe_level=0,
        attempts=window,
        failures=window,
        failure_mean=DecayedMean(),
    )


def _is_in(standing: Standing) -> bool:
    return standing.health in _IN


def _next_level(standing: Standing) -> int:
    return min(_LONGEST_PAUSE_LEVEL, standing.probe_level + 1)


def takes_requests(standing: Standing) -> bool:
    """Tells whether a backend may be sent requests."""
    # Asked dozens of times for each request.
    return standing.health in _IN and not standing.drained


def surcharge_seconds(standing: Standing, now: float, rules: Rules = RULES) -> float:
    """Returns what to add to the cost of a backend: it has just returned, or was busy lately.

    One that is out, and is used for want of others, costs what one costs that has just returned.

    Args:
        standing: The backend.
        now: Seconds of the monotonic clock.
        rules: How it comes back.
    """
    surcharge = rules.busy_surcharge_seconds * exp(
        (standing.busy_at - now) / rules.busy_fade_seconds
    )
    if standing.health in (State.RETURNING, State.EJECTED):
        start = min(
            rules.slow_start_surcharge_seconds * standing.ejection_count,
            rules.longest_surcharge_seconds,
        )
        returned = standing.health is State.RETURNING
        faded = (now - standing.since) / rules.slow_start_seconds if returned else 0.0
        surcharge += start * max(0.0, 1.0 - faded)
    return surcharge


def next_probe_at(standing: Standing, interval_seconds: float, rules: Rules = RULES) -> float:
    """Returns when a backend is to be checked next; minus infinity where it never was.

    Args:
        standing: The backend.
        interval_seconds: Time between the checks of a backend without failures.
        rules: How suspects are checked.
    """
    if _is_in(standing) and not standing.suspected:
        return standing.probed_at + interval_seconds
    level = standing.probe_level
    pause = min(ldexp(rules.probe_seconds, level - 1), interval_seconds) if level else 0.0
    if standing.down:
        return standing.probed_at + min(pause, rules.lost_probe_seconds)
    due = standing.probed_at + pause
    if standing.health is State.EJECTED and standing.probed_at < standing.ejected_until:
        return min(due, standing.ejected_until)
    return due


def needs_canary(standing: Standing, now: float, rules: Rules = RULES) -> bool:
    """Tells whether a backend is to be sent a canary now, unless one is under way.

    It is on its way back, or in doubt, or has not served anything for a while.

    Args:
        standing: The backend.
        now: Seconds of the monotonic clock.
        rules: How long that while is.
    """
    if standing.drained:
        return False
    if standing.health is State.HALF_OPEN:
        return True
    idle = now - standing.tried_at >= rules.canary_interval_seconds
    return _is_in(standing) and (standing.doubted or idle)


def failure_ratio(standing: Standing, now: float) -> float:
    """Returns the share of the attempts at a backend that are to be expected to fail, [0, 1].

    Args:
        standing: The backend.
        now: Seconds of the monotonic clock.
    """
    return standing.failure_mean.estimate(0.0, now, prior_weight=_FAILURE_PRIOR_WEIGHT)


def allowed_out(serving_count: int) -> int:
    """Returns how many backends of a model may be out with more of them going out without proof.

    Args:
        serving_count: How many backends have the model.
    """
    return serving_count // 2
