"""What calls for vectors take: how large they should be, and when one is late."""

import math

__all__ = ["CallDurations", "character_limit", "work_units"]

# A text of so many characters takes about twice what a text of no length would.
_CHARACTERS_PER_UNIT = 1000.0
_LATE_SHARE = 0.05
_MINIMUM_SAMPLES = 50
_MINIMUM_TELLING_SAMPLES = 5
# Each new sample weighs half a percent, so that the last two hundred say what is late.
_RETAINED_SHARE = 0.995
_RESCALE_ABOVE = 1e100
_SHORTEST_DELAY_SECONDS = 0.02
_MAXIMUM_MODEL_COUNT = 1000

# Durations are counted by their logarithms, in steps of 5 %, from a microsecond to a thousand
# seconds.
_STEP_LOG = math.log(1.05)
_FIRST_LOG = math.log(1e-6)
_BUCKET_COUNT = math.ceil(math.log(1e9) / _STEP_LOG) + 1


def work_units(text_count: int, character_count: int) -> float:
    """Says how much work a call is; the call itself counts as one text.

    Durations of calls are compared per unit, or large calls would always be late.

    Args:
        text_count: Texts of the call.
        character_count: Characters of all of them.
    """
    return 1.0 + text_count + character_count / _CHARACTERS_PER_UNIT


def character_limit(units: float, mean_length: float) -> float:
    """Says how many characters a call of so much work has.

    Args:
        units: How much work.
        mean_length: Characters of a text on average, more than 0.
    """
    return units * mean_length / (1.0 + mean_length / _CHARACTERS_PER_UNIT)


class _Histogram:
    """Durations of a model's calls per unit of work."""

    __slots__ = ("_counts", "_highest", "_increment", "_total", "sample_count")

    def __init__(self) -> None:
        self._counts = [0.0] * _BUCKET_COUNT
        # The last bucket that anything was counted in.
        self._highest = 0
        # Instead of all old counts falling, each new one is greater.
        self._increment = 1.0
        self._total = 0.0
        self.sample_count = 0

    def add(self, seconds: float) -> None:
        bucket = int((math.log(max(seconds, 1e-6)) - _FIRST_LOG) / _STEP_LOG)
        bucket = min(bucket, _BUCKET_COUNT - 1)
        self._highest = max(bucket, self._highest)
        self._increment /= _RETAINED_SHARE
        self._counts[bucket] += self._increment
        self._total += self._increment
        self.sample_count += 1
        if self._increment > _RESCALE_ABOVE:
            self._counts = [count / self._increment for count in self._counts]
            self._total /= self._increment
            self._increment = 1.0

    def exceeded_by(self, share: float) -> float:
        """Returns the seconds that this share of the samples exceeds, at most 5 % more."""
        beyond = 0.0
        for bucket in range(self._highest, -1, -1):
            beyond += self._counts[bucket]
            if beyond > share * self._total:
                return math.exp(_FIRST_LOG + (bucket + 1) * _STEP_LOG)
        raise AssertionError("there is a sample")  # pragma: no cover


class CallDurations:
    """Learns what calls for vectors take, and says when one is late.

    That is after the 95th percentile (Dean and Barroso, "The Tail at Scale", CACM 2013). What is
    usual is the same for all backends: to be slower than most others is to be late.
    """

    def __init__(self) -> None:
        self._histograms: dict[str, _Histogram] = {}

    def note(self, model: str, units: float, seconds: float) -> None:
        """Learns from a call, or from one that was given up: it would have taken longer still.

        Args:
            model: Placement key.
            units: How much work it was.
            seconds: What it took, loading the model excluded.
        """
        histogram = self._histograms.get(model)
        if histogram is None:
            if len(self._histograms) >= _MAXIMUM_MODEL_COUNT:
                del self._histograms[next(iter(self._histograms))]
            histogram = self._histograms[model] = _Histogram()
        histogram.add(seconds / units)

    def late_after(self, model: str, units: float) -> float | None:
        """Returns after how many seconds a call is late; None where too little is known.

        Args:
            model: Placement key.
            units: How much work it is.
        """
        histogram = self._histograms.get(model)
        if histogram is None or histogram.sample_count < _MINIMUM_SAMPLES:
            return None
        return max(_SHORTEST_DELAY_SECONDS, units * histogram.exceeded_by(_LATE_SHARE))

    def units_within(self, model: str, seconds: float) -> float:
        """Returns how much work is usually done within some time; infinite before five calls.

        Args:
            model: Placement key.
            seconds: The time.
        """
        histogram = self._histograms.get(model)
        if histogram is None or histogram.sample_count < _MINIMUM_TELLING_SAMPLES:
            return math.inf
        return seconds / histogram.exceeded_by(0.5)
