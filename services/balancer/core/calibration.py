"""How well the planner's predictions come true: the ratio of what was to what was predicted."""

import math
from collections import deque
from dataclasses import dataclass

__all__ = ["Calibration", "CalibrationFigures"]

_MAXIMUM_SAMPLE_COUNT = 500
_MEMORY_SECONDS = 900.0
# Below this, the network and the event loop decide, which nobody predicts.
_LEAST_SECONDS = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationFigures:
    """How predictions of the last quarter of an hour came true.

    Attributes:
        sample_count: Predictions, [0, 500]; without any, the other figures are those of perfect
            ones.
        p10_ratio: A tenth of the actual durations were at most this multiple of the predicted.
        p50_ratio: Half of them were; above 1 where predictions are too short.
        p90_ratio: Nine tenths of them were.
        mean_absolute_log_error: Mean distance of the natural logarithms: 0.1 is about 10 %.
    """

    sample_count: int
    p10_ratio: float
    p50_ratio: float
    p90_ratio: float
    mean_absolute_log_error: float


class Calibration:
    """Remembers how the last predictions came true."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=_MAXIMUM_SAMPLE_COUNT)

    def note(self, predicted_seconds: float, actual_seconds: float, now: float) -> None:
        """Notes what became of a prediction; what is not finite is left out.

        Args:
            predicted_seconds: What was predicted; less than a millisecond counts as that.
            actual_seconds: What came; less than a millisecond counts as that.
            now: Monotonic seconds.
        """
        if math.isfinite(predicted_seconds) and math.isfinite(actual_seconds):
            ratio = max(actual_seconds, _LEAST_SECONDS) / max(predicted_seconds, _LEAST_SECONDS)
            self._samples.append((now, math.log(ratio)))

    def figures(self, now: float) -> CalibrationFigures:
        """Sums up the predictions of the last quarter of an hour, of at most 500.

        Args:
            now: Monotonic seconds.
        """
        while self._samples and self._samples[0][0] < now - _MEMORY_SECONDS:
            self._samples.popleft()
        logs = sorted(log for _, log in self._samples)
        return CalibrationFigures(
            sample_count=len(logs),
            p10_ratio=_quantile_ratio(logs, 0.1),
            p50_ratio=_quantile_ratio(logs, 0.5),
            p90_ratio=_quantile_ratio(logs, 0.9),
            mean_absolute_log_error=sum(map(abs, logs)) / len(logs) if logs else 0.0,
        )


def _quantile_ratio(sorted_logs: list[float], share: float) -> float:
    if not sorted_logs:
        return 1.0
    position = share * (len(sorted_logs) - 1)
    index = math.floor(position)
    rest = sorted_logs[index : index + 2]
    return math.exp(rest[0] + (position - index) * (rest[-1] - rest[0]))
