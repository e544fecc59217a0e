import math

import pytest

from pannier.common.v1.generation_pb2 import SamplingOptions
from services.common.sampling import sampling_violations


def fields(**options):
    found = sampling_violations(SamplingOptions(**options), field="at")
    return [violation.field for violation in found]


def test_all_faults_are_named_at_once_below_the_path_of_the_options():
    assert fields(
        temperature=2.1,
        top_p=0.0,
        top_k=0,
        max_output_token_count=0,
        context_token_count=255,
        stop_sequences=["", *"123456789"],
        min_p=1.5,
        repeat_penalty=-0.5,
        repeat_last_token_count=-2,
        presence_penalty=2.5,
        frequency_penalty=-2.5,
    ) == [
        "at.temperature",
        "at.top_p",
        "at.top_k",
        "at.max_output_token_count",
        "at.context_token_count",
        "at.stop_sequences",
        "at.min_p",
        "at.repeat_penalty",
        "at.repeat_last_token_count",
        "at.presence_penalty",
        "at.frequency_penalty",
        "at.stop_sequences[0]",
    ]


def test_every_option_has_a_rule_or_needs_none():
    broken = {"temperature": -9, "top_p": -9, "top_k": -9, "max_output_token_count": -9}
    broken |= {"context_token_count": -9, "min_p": -9, "repeat_penalty": -9}
    broken |= {"repeat_last_token_count": -9, "presence_penalty": -9, "frequency_penalty": -9}
    broken |= {"stop_sequences": [""]}
    assert {field.name for field in SamplingOptions.DESCRIPTOR.fields} - set(broken) == {"seed"}
    assert len(fields(**broken)) == len(broken)


@pytest.mark.parametrize(
    "name", ["temperature", "top_p", "min_p", "repeat_penalty", "presence_penalty",
             "frequency_penalty"]
)  # fmt: skip
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(name, number):
    assert fields(**{name: number}) == [f"at.{name}"]


def test_the_rule_is_told_together_with_what_was_given():
    def told(**options):
        (violation,) = sampling_violations(SamplingOptions(**options), field="at")
        return violation.description

    assert told(temperature=2.5) == "Must be from 0 to 2, is 2.5."
    assert told(top_p=0) == "Must be above 0 and at most 1, is 0."
    assert told(repeat_last_token_count=-2) == "Must be at least -1, is -2."
    assert told(stop_sequences=["a"] * 9) == "Must be at most 8 texts, there are 9."


@pytest.mark.parametrize("number", [-0.1, 2.1])
def test_a_temperature_out_of_range_is_refused(number):
    assert fields(temperature=number) == ["at.temperature"]


@pytest.mark.parametrize("number", [0.0, 1.1])
def test_a_top_p_out_of_range_is_refused(number):
    assert fields(top_p=number) == ["at.top_p"]


def test_options_that_are_absent_are_right():
    assert fields() == []


def test_the_limits_themselves_are_allowed():
    assert fields(temperature=0, top_p=math.ulp(0), top_k=1, max_output_token_count=1) == []
    assert fields(temperature=2, top_p=1, context_token_count=256, seed=-1) == []
    assert fields(stop_sequences=list("12345678")) == []
    assert fields(min_p=0, repeat_penalty=0, presence_penalty=-2, frequency_penalty=-2) == []
    assert fields(min_p=1, repeat_penalty=10, presence_penalty=2, frequency_penalty=2) == []
    assert fields(repeat_last_token_count=-1) == []
