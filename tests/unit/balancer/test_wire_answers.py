"""Everything an answer says comes back, in order and exactly."""

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.balancer.adapters.wire_answers import GenerationReader, embedding_reply
from services.balancer.core.failures import AttemptFailed, FailureKind
from services.balancer.core.requests import (
    Completion,
    FinishReason,
    LogprobsDelta,
    TextDelta,
    ThinkingDelta,
    TokenLogprob,
    ToolCall,
    ToolCallsDelta,
)


def line(**values):
    return orjson.dumps(values) + b"\n"


def said(**message):
    return line(message={"role": "assistant", "content": ""} | message, done=False)


def read(*lines, model="m:latest"):
    return list(GenerationReader(model).feed(b"".join(lines)))


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
    assert read(line(response="a", done=False), said(content="b")) == [TextDelta("ab")]


def test_the_final_line_becomes_a_completion_in_seconds():
    assert read(line(response="a", done=False), FINAL) == [
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
    (_, completion) = read(line(response="", done=True))
    assert completion.output_token_count == 0
    assert completion.load_seconds == 0.0
    assert completion.finish_reason is FinishReason.OTHER


def test_a_final_line_without_its_end_still_counts():
    reader = GenerationReader("m:latest")
    assert list(reader.feed(FINAL.rstrip())) == []
    assert isinstance(list(reader.end())[-1], Completion)


def test_what_comes_after_the_final_line_is_not_read():
    assert isinstance(read(FINAL, b"{\n")[-1], Completion)


def test_a_line_that_says_nothing_is_a_sign_of_life():
    assert read(said()) == [TextDelta("")]


def test_text_before_an_error_line_is_passed_on_before_the_failure():
    items = GenerationReader("m:latest").feed(line(response="a", done=False) + line(error="died"))
    assert next(items) == TextDelta("a")
    with pytest.raises(AttemptFailed, match="died"):
        next(items)


@pytest.mark.parametrize("data", [b"{\n", b"[]\n", b"1\n", b"\xff\n"])
def test_a_line_that_is_no_object_breaks_the_reply(data):
    with pytest.raises(AttemptFailed) as caught:
        read(data)
    assert caught.value.kind is FailureKind.BROKEN_REPLY


def test_thoughts_are_told_from_text_in_both_kinds_of_answer():
    assert read(said(thinking="hm")) == [ThinkingDelta("hm")]
    assert read(line(response="", thinking="hm", done=False)) == [ThinkingDelta("hm")]


def test_what_came_together_makes_one_delta_of_each_kind():
    call = {"function": {"name": "t", "arguments": {}}}
    probable = {"token": "a", "logprob": -1.0}
    items = read(
        said(thinking="h"),
        said(thinking="m", content="a"),
        line(message={"content": "b", "tool_calls": [call]}, logprobs=[probable], done=False),
        line(message={"tool_calls": [call, call]}, logprobs=[probable], done=False),
        FINAL,
    )
    token = TokenLogprob(token="a", logprob=-1.0, token_bytes=b"a")
    assert items[:-1] == [
        ThinkingDelta("hm"),
        TextDelta("ab"),
        ToolCallsDelta((ToolCall(name="t", arguments_json="{}"),) * 3),
        LogprobsDelta((token, token)),
    ]
    assert isinstance(items[-1], Completion)


def test_a_tool_call_keeps_its_id_and_unknown_fields_are_passed_over():
    call = {
        "id": "call_x",
        "type": "function",
        "function": {"index": 0, "name": "t", "arguments": {"b": 1, "a": [True, None]}, "x": 1},
    }
    assert read(said(tool_calls=[call])) == [
        ToolCallsDelta((ToolCall(id="call_x", name="t", arguments_json='{"b":1,"a":[true,null]}'),))
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        '{"z":1,"a":2,"m":{"y":0,"b":0}}',
        '{"n":123456789012345678901234567890,"m":-18446744073709551616}',
        '{"n":1.10,"m":0.1234567890123456789,"e":1E5,"z":-0}',
        '{"ä":"ü \U0001f600","":[]}',
    ],
)
def test_arguments_keep_their_order_and_every_digit(arguments):
    data = b'{"message":{"tool_calls":[{"function":{"name":"t","arguments":%b}}]}}\n'
    (delta,) = read(data % arguments.encode())
    assert delta.calls[0].arguments_json == arguments


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: st.lists(children, max_size=3)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), children, max_size=3),
    max_leaves=10,
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON_VALUES, max_size=4))
def test_arguments_of_any_kind_mean_the_same_after_as_before(arguments):
    call = {"function": {"name": "t", "arguments": arguments}}
    data = json.dumps({"message": {"tool_calls": [call]}}).encode() + b"\n"
    (delta,) = read(data)
    read_back = json.loads(delta.calls[0].arguments_json)
    assert read_back == arguments
    assert list(read_back) == list(arguments)


def test_a_tool_without_arguments_is_called_with_none():
    for function in ({"name": "t"}, {"name": "t", "arguments": None}):
        (delta,) = read(said(tool_calls=[{"function": function}]))
        assert delta.calls[0].arguments_json == "{}"


def nested(depth):
    return b'{"a":' * depth + b"1" + b"}" * depth


@pytest.mark.parametrize(
    "calls",
    [b"7", b"[7]", b'[{"name":"t"}]', b'[{"function":{"name":7}}]', b'[{"function":{}}]',
     b'[{"function":{"name":"t","arguments":"{}"}}]',
     b'[{"function":{"name":"t","arguments":%b}}]' % nested(500),
     b'[{"function":{"name":"t","arguments":%b}}]' % nested(1015)],
)  # fmt: skip
def test_a_tool_call_that_makes_no_sense_breaks_the_reply(calls):
    with pytest.raises(AttemptFailed) as caught:
        read(b'{"message":{"tool_calls":%b}}\n' % calls)
    assert caught.value.kind is FailureKind.BROKEN_REPLY


def test_probabilities_come_with_their_alternatives_and_bytes():
    entry = {
        "token": "\ufffd",
        "logprob": -0.25,
        "bytes": [0xC3],
        "top_logprobs": [
            {"token": "\ufffd", "logprob": -0.25, "bytes": [0xC3]},
            {"token": "ä", "logprob": -2, "bytes": [0xC3, 0xA4]},
            {"token": "ö", "logprob": 1e-9},
        ],
    }
    assert read(line(response="", logprobs=[entry], done=False)) == [
        LogprobsDelta(
            (
                TokenLogprob(
                    token="\ufffd",
                    logprob=-0.25,
                    token_bytes=b"\xc3",
                    top=(
                        TokenLogprob(token="\ufffd", logprob=-0.25, token_bytes=b"\xc3"),
                        TokenLogprob(token="ä", logprob=-2.0, token_bytes="ä".encode()),
                        TokenLogprob(token="ö", logprob=0.0, token_bytes="ö".encode()),
                    ),
                ),
            )
        )
    ]


@pytest.mark.parametrize(
    "entries",
    [7, [7], {"token": "a"}, [{"token": "a"}], [{"logprob": -1.0}],
     [{"token": 7, "logprob": -1.0}], [{"token": 7, "logprob": -1.0, "bytes": [55]}],
     [{"token": "a", "logprob": "x"}], [{"token": "a", "logprob": -1.0, "bytes": [256]}],
     [{"token": "a", "logprob": -1.0, "top_logprobs": 7}]],
)  # fmt: skip
def test_probabilities_that_make_no_sense_break_the_reply(entries):
    with pytest.raises(AttemptFailed) as caught:
        read(line(response="a", logprobs=entries))
    assert caught.value.kind is FailureKind.BROKEN_REPLY


def test_vectors_come_with_what_they_took():
    body = b'{"embeddings":[[0.6,0.8]],"prompt_eval_count":2,"load_duration":1000000000}'
    reply = embedding_reply(body, 1, "m:latest")
    assert reply.vectors.tolist() == [pytest.approx([0.6, 0.8])]
    assert (reply.prompt_token_count, reply.load_seconds) == (2, 1.0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["embeddings", "error", "message", "content", "response", "thinking", "done",
             "done_reason", "eval_count", "tool_calls", "function", "arguments", "name", "id",
             "logprobs", "token", "logprob", "bytes", "top_logprobs"]
        ),
        children,
        max_size=4,
    ),
    max_leaves=15,
)  # fmt: skip


@given(st.binary(max_size=200) | JSON.map(orjson.dumps))
def test_bytes_of_any_kind_are_an_answer_or_a_failure_and_nothing_else(data):
    for use in (lambda: embedding_reply(data, 1, "m:latest"), lambda: read(data + b"\n")):
        try:
            use()
        except AttemptFailed:
            continue


NAMES = [
    ("m:latest", "m:latest"),
    ("m", "m:latest"),
    ("M:Latest", "m"),
    ("library/m:latest", "m:latest"),
    ("registry.ollama.ai/library/m:latest", "m:latest"),
    ("m:latest", "registry.ollama.ai/library/m"),
    ("hf.co/a/b:Q4_K_M", "hf.co/a/b:q4_k_m"),
    ("m", "m:cloud"),
    ("m:120b", "m:120b-cloud"),
]
OTHERS = ["n:latest", "m:7b", "someone/m:latest", "", 7]


@pytest.mark.parametrize(("answered", "asked"), NAMES)
def test_a_model_may_be_called_by_another_of_its_names(answered, asked):
    assert read(line(model=answered, response="a"), model=asked) == [TextDelta("a")]
    body = line(model=answered, embeddings=[[1.0]])
    assert len(embedding_reply(body, 1, asked).vectors) == 1


@pytest.mark.parametrize("answered", OTHERS)
def test_an_answer_of_another_model_is_broken_before_its_first_text(answered):
    items = GenerationReader("m:latest").feed(line(model=answered, response="a"))
    with pytest.raises(AttemptFailed, match="another model") as caught:
        next(items)
    assert caught.value.kind is FailureKind.BROKEN_REPLY
    with pytest.raises(AttemptFailed, match="another model"):
        embedding_reply(line(model=answered, embeddings=[[1.0]]), 1, "m:latest")


def test_a_name_that_is_said_is_short():
    with pytest.raises(AttemptFailed) as caught:
        read(line(model="n" * 1_000_000, response="a"))
    assert len(caught.value.message) < 200
