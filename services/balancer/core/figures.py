"""A figure of every model on every backend, learned from samples and guessed where there are none.

All is in logarithms: rates and durations vary by factors, a mean of logarithms is not at the mercy
of a single long one, and "this backend takes three times as long as the others" is an addend.

What is expected of a model on a backend is, from the general to the particular: a prior; what the
fleet has shown of the model, on an average backend; what the backend has shown of its other
models, beside an average one; what it has shown of this model. Each step goes as far from the one
before as its evidence carries.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Figure"]

# Weight of a new sample: enough to average noise out, and a change is followed within 20 samples.
_GAIN = 0.2
_MAXIMUM_WEIGHT = 20.0
# What a backend has shown loses its say while it shows nothing, so that one that was slow once is
# tried again; a remainder stays, since most differences are of the machines and last.
_LASTING_WEIGHT = 2.0
# That a backend is slow is half believed after two to three samples, and nine tenths after eight.
# Were it believed at once, one slow reply (a first connection, a disk that had to wake) would keep
# away the very requests that could show otherwise.
_SLOWNESS_PROOF_WEIGHT = 2.7
_QUICKNESS_PROOF_WEIGHT = 1.0
# A stall says that something happened, not how long the next request takes.
_WIDEST_STEP = math.log(5.0)
_MEDIAN_LENGTH = 3
_SOLVER_ROUNDS = 3
# Solving takes time in proportion to the cells; so many of them are paid for by each sample.
_CELLS_PER_SAMPLE = 4
_SPEED_PRIOR_WEIGHT = 1.0
_MAXIMUM_CELL_COUNT = 8192
# What time alone changes is brought up to date this often, at fixed instants, so that what is
# expected depends on samples and time and not on who asked before.
_PERIOD_SECONDS = 5.0

_Key = tuple[str, str]
_Shown = tuple[str, str, float, float]
"""Backend, model, what was shown and how many samples that is worth."""


@dataclass(slots=True)
class _Cell:
    """What one backend has shown of one model.

    Attributes:
        value: Exponentially weighted mean of the running medians of three samples.
        weight: Samples that it is worth, (0, 20], at `updated_at`.
        updated_at: When the last sample came, monotonic seconds.
        recent: The last samples with their weights, at most three.
        sample_count: Samples so far, counted to three.
    """

    value: float = 0.0
    weight: float = 0.0
    updated_at: float = -math.inf
    recent: tuple[tuple[float, float], ...] = ()
    sample_count: int = 0

    def add(self, sample: float, weight: float, now: float, fade_seconds: float) -> None:
        """Takes in a sample that is worth `weight`, (0, 1]."""
        self.recent = (*self.recent, (sample, weight))[-_MEDIAN_LENGTH:]
        self.weight = min(_MAXIMUM_WEIGHT, self.weight_at(now, fade_seconds) + weight)
        self.updated_at = max(now, self.updated_at)
        middle = _lower_median(self.recent)
        if self.sample_count < _MEDIAN_LENGTH:
            self.sample_count += 1
            self.value = middle
            return
        gain = min(1.0, max(_GAIN * weight, weight / self.weight))
        self.value += gain * max(-_WIDEST_STEP, min(_WIDEST_STEP, middle - self.value))

    def weight_at(self, now: float, fade_seconds: float) -> float:
        """Returns what it is worth now, in samples."""
        faded = self.weight * math.exp(-max(0.0, now - self.updated_at) / fade_seconds)
        return max(faded, min(self.weight, _LASTING_WEIGHT))


class Figure:
    """A learned figure, as the natural logarithm of something that is better when it is less.

    Args:
        prior: Says what to expect of a model of which nothing is known, as a logarithm.
        fade_seconds: Without samples, evidence falls to 1/e in this time, and to two samples at
            the least.
    """

    def __init__(self, prior: Callable[[str], float], *, fade_seconds: float = 300.0) -> None:
        self._prior = prior
        self._fade_seconds = fade_seconds
        self._cells: dict[_Key, _Cell] = {}
        self._unsolved_count = 0
        self._speeds: dict[str, float] = {}
        self._solution = _Solution((), {}, {}, prior)
        self._expected: dict[_Key, float] = {}
        self._period_start = math.inf
        self._period_end = -math.inf

    def note(
        self, backend_id: str, model: str, sample: float, now: float, *, weight: float = 1.0
    ) -> float:
        """Learns from a sample.

        Args:
            backend_id: Who has shown it.
            model: Of which model.
            sample: The logarithm of what was seen, finite.
            now: Monotonic seconds.
            weight: What it is worth beside others, (0, 1].

        Returns:
            What the backend itself has shown of the model so far, as a logarithm.
        """
        key = (backend_id, model)
        cell = self._cells.get(key)
        if cell is None:
            if len(self._cells) >= _MAXIMUM_CELL_COUNT:
                del self._cells[min(self._cells, key=lambda each: self._cells[each].updated_at)]
            cell = self._cells[key] = _Cell()
        cell.add(sample, weight, now, self._fade_seconds)
        self._expected.pop(key, None)
        self._unsolved_count += 1
        is_due = self._unsolved_count * _CELLS_PER_SAMPLE >= len(self._cells)
        if is_due or backend_id not in self._speeds or not self._solution.knows(model):
            self.solve()
        return cell.value

    def expected(self, backend_id: str, model: str, now: float) -> float:
        """Returns what to expect, as a logarithm.

        Args:
            backend_id: Of whom.
            model: With which model.
            now: Monotonic seconds.
        """
        if not self._period_start <= now < self._period_end:
            self._begin_period(now)
        key = (backend_id, model)
        value = self._expected.get(key)
        if value is None:
            value = self._expected[key] = self._compute(key)
        return value

    def forget(self, backend_id: str) -> None:
        """Forgets a backend."""
        self._cells = {key: cell for key, cell in self._cells.items() if key[0] != backend_id}
        self._speeds.pop(backend_id, None)
        self.solve()

    def solve(self) -> None:
        """Splits what was shown into what is the models' and what is the backends'.

        Weighted least squares for `value = model + backend`, by turns; the average backend is 0.
        Begins with the last solution, so that few rounds suffice.
        """
        self._unsolved_count = 0
        self._expected.clear()
        shown = [(*key, cell.value, cell.weight) for key, cell in self._cells.items()]
        model_weights: dict[str, float] = {}
        backend_weights: dict[str, float] = {}
        for backend_id, model, _, weight in shown:
            model_weights[model] = model_weights.get(model, 0.0) + weight
            before = backend_weights.get(backend_id, _SPEED_PRIOR_WEIGHT)
            backend_weights[backend_id] = before + weight
        # One backend alone is the average one.
        alone = len(backend_weights) == 1
        speeds = {each: 0.0 if alone else self._speeds.get(each, 0.0) for each in backend_weights}
        models = _model_means(shown, speeds, model_weights)
        for _ in range(0 if alone else _SOLVER_ROUNDS):
            speeds = _centred(_backend_means(shown, models, backend_weights))
            models = _model_means(shown, speeds, model_weights)
        self._speeds = speeds
        self._solution = _Solution(shown, models, model_weights, self._prior)

    def _begin_period(self, now: float) -> None:
        self._period_start = math.floor(now / _PERIOD_SECONDS) * _PERIOD_SECONDS
        self._period_end = self._period_start + _PERIOD_SECONDS
        self._expected.clear()

    def _compute(self, key: _Key) -> float:
        fallback = self._solution.typical(key[1]) + self._solution.speed_elsewhere(key)
        cell = self._cells.get(key)
        if cell is None:
            return fallback
        weight = cell.weight_at(self._period_start, self._fade_seconds)
        return fallback + _believed(cell.value - fallback, weight)


class _Solution:
    """What is the models' and what is the backends', at one time.

    Args:
        shown: What each backend has shown of each model.
        models: What each model shows on an average backend.
        model_weights: How many samples that is worth.
        prior: What to expect of a model of which nothing is known.
    """

    def __init__(
        self,
        shown: Sequence[_Shown],
        models: dict[str, float],
        model_weights: dict[str, float],
        prior: Callable[[str], float],
    ) -> None:
        self._prior = prior
        self._models = models
        self._model_weights = model_weights
        self._residuals: dict[_Key, tuple[float, float]] = {}
        self._backends: dict[str, tuple[float, float]] = {}
        for backend_id, model, value, weight in shown:
            residual = weight * (value - models[model])
            self._residuals[backend_id, model] = (residual, weight)
            total, total_weight = self._backends.get(backend_id, (0.0, 0.0))
            self._backends[backend_id] = (total + residual, total_weight + weight)
        self._excesses = {
            model: _believed(value - prior(model), model_weights[model])
            for model, value in models.items()
        }
        self._total_excess = sum(self._excesses.values())

    def knows(self, model: str) -> bool:
        """Tells whether anything was shown of a model."""
        return model in self._models

    def typical(self, model: str) -> float:
        """Returns what to expect of a model on an average backend."""
        excess = self._excesses.get(model)
        other_count = len(self._excesses) - (excess is not None)
        expected = self._prior(model)
        if other_count:
            expected += (self._total_excess - (excess or 0.0)) / other_count
        if excess is None:
            return expected
        return expected + _believed(self._models[model] - expected, self._model_weights[model])

    def speed_elsewhere(self, key: _Key) -> float:
        """Returns what a backend has shown with all models but one, beside the average backend."""
        total, weight = self._backends.get(key[0], (0.0, 0.0))
        own_total, own_weight = self._residuals.get(key, (0.0, 0.0))
        weight -= own_weight
        if weight < 1e-6:
            return 0.0
        return _believed((total - own_total) / (weight + _SPEED_PRIOR_WEIGHT), weight)


def _model_means(
    shown: Sequence[_Shown], speeds: Mapping[str, float], weights: Mapping[str, float]
) -> dict[str, float]:
    """Returns per model what its backends have shown, less what is theirs."""
    sums = dict.fromkeys(weights, 0.0)
    for backend_id, model, value, weight in shown:
        sums[model] += weight * (value - speeds[backend_id])
    return {model: total / weights[model] for model, total in sums.items()}


def _backend_means(
    shown: Sequence[_Shown], models: Mapping[str, float], weights: Mapping[str, float]
) -> dict[str, float]:
    """Returns per backend what it has shown, less what is the models', drawn to 0."""
    sums = dict.fromkeys(weights, 0.0)
    for backend_id, model, value, weight in shown:
        sums[backend_id] += weight * (value - models[model])
    return {backend_id: total / weights[backend_id] for backend_id, total in sums.items()}


def _centred(speeds: Mapping[str, float]) -> dict[str, float]:
    middle = sum(speeds.values()) / max(len(speeds), 1)
    return {backend_id: speed - middle for backend_id, speed in speeds.items()}


def _believed(deviation: float, weight: float) -> float:
    """Returns how much of a deviation to believe; slowness, above 0, takes more proof."""
    if deviation > 0:
        return deviation * weight**2 / (weight**2 + _SLOWNESS_PROOF_WEIGHT**2)
    return deviation * weight / (weight + _QUICKNESS_PROOF_WEIGHT)


def _lower_median(samples: tuple[tuple[float, float], ...]) -> float:
    """Returns the weighted median; the lower of two that are equally good."""
    half = sum(weight for _, weight in samples) / 2.0
    cumulative = 0.0
    for value, weight in sorted(samples):
        cumulative += weight
        if cumulative >= half:
            return value
    return max(samples)[0]
