"""Between times and durations and their messages."""

from datetime import UTC, datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from services.common.validation import Violations

__all__ = ["moment_of", "to_duration", "to_optional_duration", "to_timestamp"]


def to_timestamp(moment: datetime) -> Timestamp:
    """Writes a time."""
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp


def moment_of(message: Timestamp, violations: Violations, *, field: str) -> datetime | None:
    """Reads a time; None where it is none, which is then a violation of `field`."""
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        violations.add(field, "Must be a time from year 1 to year 9999.")
        return None


def to_duration(seconds: float) -> Duration:
    """Writes a duration."""
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration


def to_optional_duration(seconds: float | None) -> Duration | None:
    """Writes a duration; None where it is not known."""
    return None if seconds is None else to_duration(seconds)
