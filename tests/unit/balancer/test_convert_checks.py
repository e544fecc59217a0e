"""Each rule of requests by itself: what keeps it, what breaks it, what is told then."""

import pytest
from google.protobuf.duration_pb2 import Duration

from pannier.balancer.v1 import balancer_service_pb2 as pb
from services.balancer import convert_checks as checks


def fields(violations):
    return [violation.field for violation in violations]


def prompt(**values):
    return fields(checks.prompt_violations(pb.GenerateRequest(**({"prompt": "p"} | values))))


def test_texts_of_a_prompt_may_be_as_long_as_the_limit_and_no_longer():
    assert prompt(prompt="p" * 1_000_000, system="s" * 100_000, suffix="s" * 1_000_000) == []
    assert prompt(prompt="p" * 1_000_001) == ["prompt"]
    assert prompt(prompt="") == ["prompt"]
    assert prompt(system="s" * 100_001) == ["system"]
    assert prompt(suffix="s" * 1_000_001) == ["suffix"]


def test_images_of_a_prompt_are_checked():
    assert prompt(images=[b"\xff\xd8\xff", b"GIF89a"]) == ["images[1]"]


def test_a_raw_prompt_has_no_place_for_a_system_prompt():
    assert prompt(raw=True, system="s") == ["system"]
    assert prompt(raw=True) == []


def answer(**values):
    found = {
        tuple(fields(checks.answer_violations(kind(**values))))
        for kind in (pb.GenerateRequest, pb.ChatRequest)
    }
    (same,) = found
    return list(same)


def test_a_format_is_any_json_or_a_schema():
    assert answer(format={"json": True}) == []
    assert answer(format={"json_schema": "{}"}) == []
    assert answer(format={"json": False}) == ["format"]
    assert answer(format={}) == ["format"]
    assert answer(format={"json_schema": "[]"}) == ["format.json_schema"]


def test_at_most_20_alternatives_are_reported():
    assert answer(top_logprob_count=0) == answer(top_logprob_count=20) == []
    assert answer(top_logprob_count=-1) == answer(top_logprob_count=21) == ["top_logprob_count"]


def test_a_level_of_thinking_that_is_not_known_is_refused():
    assert answer(thinking=7) == answer(thinking=-1) == ["thinking"]


def test_texts_are_1_to_512_and_none_is_empty():
    assert fields(checks.text_violations([])) == ["texts"]
    assert fields(checks.text_violations(["a", "", "x" * 100_001])) == ["texts[1]", "texts[2]"]
    assert fields(checks.text_violations(["x" * 100_000] * 512)) == []
    assert fields(checks.text_violations(["a"] * 513)) == ["texts"]


def test_vectors_have_at_least_one_number():
    assert fields(checks.dimension_violations(pb.EmbedRequest(dimension=0))) == ["dimension"]
    assert fields(checks.dimension_violations(pb.EmbedRequest(dimension=1))) == []
    assert fields(checks.dimension_violations(pb.EmbedRequest())) == []


def routing(**values):
    return fields(checks.routing_violations(pb.RoutingOptions(**values)))


def test_a_digest_is_64_hexadecimal_digits():
    assert routing(model_digest="0123456789abcdefABCDEF0123456789" * 2) == []
    for digest in ("a" * 63, "a" * 65, "g" * 64, "a" * 64 + "\n", f"sha256:{'a' * 64}"):
        assert routing(model_digest=digest) == ["routing.model_digest"]


@pytest.mark.parametrize(
    "wait",
    [Duration(), Duration(seconds=-1), Duration(nanos=-1), Duration(seconds=1, nanos=-1),
     Duration(nanos=1_000_000_000), Duration(seconds=315_576_000_001)],
)  # fmt: skip
def test_a_wait_that_is_no_time_is_refused(wait):
    assert routing(maximum_wait=wait) == ["routing.maximum_wait"]


def test_a_wait_may_be_as_short_or_as_long_as_a_duration_can_be():
    assert routing(maximum_wait=Duration(nanos=1)) == []
    assert routing(maximum_wait=Duration(seconds=315_576_000_000)) == []
    assert routing() == []


def test_every_priority_and_mode_of_resuming_is_known():
    for value in pb.Priority.values():
        assert routing(priority=value) == []
    for value in pb.ResumeMode.values():
        assert routing(resume=value) == []
