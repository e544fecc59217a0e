import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.balancer.adapters import wire
from services.balancer.core.failures import AttemptFailed, FailureKind
from services.balancer.core.models import Capability
from services.balancer.core.requests import (
    Completion,
    FinishReason,
    GenerationRequest,
    Message,
    Operation,
    Role,
    Sampling,
    TextDelta,
)

LINES = st.lists(st.binary().map(lambda line: line.replace(b"\n", b"")), max_size=20)


@given(LINES, st.lists(st.integers(0, 200), max_size=20))
def test_lines_are_the_same_wherever_the_network_cuts_them(lines, cuts):
    data = b"\n".join(lines)
    splitter, found, start = wire.LineSplitter(), [], 0
    for cut in [*sorted(cuts), len(data)]:
        found += splitter.feed(data[start:cut])
        start = max(start, cut)
    found += splitter.rest()
    assert found == [line for line in lines if line.strip()]
    assert splitter.rest() == []


def test_a_line_may_have_8_mib_but_not_more():
    splitter = wire.LineSplitter()
    assert splitter.feed(b"x" * wire.MAXIMUM_LINE_BYTES) == []
    assert splitter.feed(b"\n") == [b"x" * wire.MAXIMUM_LINE_BYTES]
    splitter.feed(b"x" * wire.MAXIMUM_LINE_BYTES)
    with pytest.raises(AttemptFailed) as caught:
        splitter.feed(b"x")
    assert caught.value.kind is FailureKind.BROKEN_REPLY


def line(**values):
    return orjson.dumps(values) + b"\n"


FINAL = line(
    response="",
    done=True,
    done_reason="length",
    prompt_eval_count=3,
    eval_count=5,
    load_duration=2_000_000_000,
    prompt_eval_duration=500_000_000,
    eval_duration=1_000_000_000,
)


def test_text_that_came_together_makes_one_delta():
    reader = wire.GenerationReader()
    data = line(response="a", done=False) + line(message={"content": "b"}, done=False)
    assert list(reader.feed(data)) == [TextDelta("ab")]


def test_the_final_line_becomes_a_completion_in_seconds():
    reader = wire.GenerationReader()
    assert list(reader.feed(line(response="a", done=False) + FINAL)) == [
        TextDelta("a"),
        Completion(
            finish_reason=FinishReason.LENGTH,
            prompt_token_count=3,
            output_token_count=5,
            load_seconds=2.0,
            prompt_seconds=0.5,
            output_seconds=1.0,
        ),
    ]


def test_numbers_that_ollama_leaves_out_are_zero():
    (_, completion) = wire.GenerationReader().feed(line(response="", done=True))
    assert completion.output_token_count == 0
    assert completion.load_seconds == 0.0
    assert completion.finish_reason is FinishReason.OTHER


def test_a_final_line_without_its_end_still_counts():
    reader = wire.GenerationReader()
    assert list(reader.feed(FINAL.rstrip())) == []
    assert isinstance(list(reader.end())[-1], Completion)


def test_text_before_an_error_line_is_passed_on_before_the_failure():
    items = wire.GenerationReader().feed(line(response="a", done=False) + line(error="died"))
    assert next(items) == TextDelta("a")
    with pytest.raises(AttemptFailed, match="died"):
        next(items)


@pytest.mark.parametrize("data", [b"{\n", b"[]\n", b"1\n", b"\xff\n"])
def test_a_line_that_is_no_object_breaks_the_reply(data):
    with pytest.raises(AttemptFailed) as caught:
        list(wire.GenerationReader().feed(data))
    assert caught.value.kind is FailureKind.BROKEN_REPLY


def test_sampling_becomes_options_and_what_is_not_set_is_not_sent():
    request = GenerationRequest(
        operation=Operation.GENERATE,
        model="m",
        prompt="p",
        sampling=Sampling(
            temperature=0.0,
            top_p=0.5,
            top_k=4,
            seed=-1,
            max_output_token_count=9,
            context_token_count=512,
            stop_sequences=("x",),
        ),
    )
    assert orjson.loads(wire.generation_body(request, "m:latest")) == {
        "model": "m:latest",
        "stream": True,
        "prompt": "p",
        "options": {
            "temperature": 0.0,
            "top_p": 0.5,
            "top_k": 4,
            "seed": -1,
            "num_predict": 9,
            "num_ctx": 512,
            "stop": ["x"],
        },
    }
    chat = GenerationRequest(
        operation=Operation.CHAT, model="m", messages=(Message(role=Role.USER, content="hi"),)
    )
    assert orjson.loads(wire.generation_body(chat, "m:latest")) == {
        "model": "m:latest",
        "stream": True,
        "messages": [{"role": "user", "content": "hi"}],
    }


def test_capabilities_missing_from_the_list_are_unknown_not_empty():
    body = orjson.dumps(
        {
            "models": [
                {"name": "old:latest", "digest": "1"},
                {
                    "name": "new:latest",
                    "digest": "2",
                    "capabilities": ["completion", "vision"],
                    "details": {"family": "llama", "context_length": 8192},
                },
                {"digest": "nameless"},
            ]
        }
    )
    old, new = wire.installed_models(body)
    assert old.description.capabilities is None
    assert new.description.capabilities == {Capability.COMPLETION}
    assert (new.family, new.description.context_token_count) == ("llama", 8192)


def test_a_description_reads_the_metadata_of_its_architecture():
    body = orjson.dumps(
        {
            "capabilities": ["embedding"],
            "model_info": {
                "general.architecture": "bert",
                "bert.context_length": 512,
                "bert.embedding_length": 384,
            },
        }
    )
    description = wire.model_description(body)
    assert description.capabilities == {Capability.EMBEDDING}
    assert (description.embedding_dimension, description.context_token_count) == (384, 512)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_reply_or_a_failure_and_nothing_else(data):
    for read in (
        wire.installed_models,
        wire.loaded_models,
        wire.model_description,
        lambda body: wire.embedding_reply(body, 1),
        lambda body: list(wire.GenerationReader().feed(body + b"\n")),
    ):
        try:
            read(data)
        except AttemptFailed:
            continue
    assert wire.error_reply(500, data).kind in FailureKind


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["models", "name", "details", "capabilities", "model_info", "embeddings", "error",
             "message", "content", "response", "done", "done_reason", "eval_count",
             "general.architecture", "size"]
        ),
        children,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(JSON)
def test_json_of_any_shape_is_a_reply_or_a_failure_and_nothing_else(value):
    test_any_bytes_are_a_reply_or_a_failure_and_nothing_else.hypothesis.inner_test(
        orjson.dumps(value)
    )
