"""The rules of `pannier.common.v1.SamplingOptions`, which several services take."""

from collections.abc import Iterator
from typing import Any

from pannier.common.v1 import generation_pb2
from services.common.errors import FieldViolation

__all__ = ["sampling_violations"]

MAXIMUM_STOP_SEQUENCES = 8

_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "min_p": (0, 1),
    "repeat_penalty": (0, 10),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
}
_MINIMA = {
    "top_k": 1,
    "max_output_token_count": 1,
    "context_token_count": 256,
    "repeat_last_token_count": -1,
}


def sampling_violations(
    sampling: generation_pb2.SamplingOptions, *, field: str
) -> Iterator[FieldViolation]:
    """Finds what is wrong with sampling options; what is absent is right.

    Args:
        sampling: The options.
        field: Path of the options in the request.
    """
    for descriptor, value in sampling.ListFields():
        rule = _broken_rule(descriptor.name, value)
        if rule:
            yield FieldViolation(f"{field}.{descriptor.name}", rule)
    for index, text in enumerate(sampling.stop_sequences):
        if not text:
            yield FieldViolation(f"{field}.stop_sequences[{index}]", "Must not be empty.")


def _broken_rule(name: str, value: Any) -> str:
    # Written so that NaN breaks the rules too.
    if name in _RANGES:
        minimum, maximum = _RANGES[name]
        if not minimum <= value <= maximum:
            return f"Must be from {minimum:g} to {maximum:g}, is {value:g}."
    elif name in _MINIMA:
        if value < _MINIMA[name]:
            return f"Must be at least {_MINIMA[name]}, is {value}."
    elif name == "top_p":
        if not 0 < value <= 1:
            return f"Must be above 0 and at most 1, is {value:g}."
    elif name == "stop_sequences" and len(value) > MAXIMUM_STOP_SEQUENCES:
        return f"Must be at most {MAXIMUM_STOP_SEQUENCES} texts, there are {len(value)}."
    return ""
