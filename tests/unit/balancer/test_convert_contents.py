"""Each rule of what a model is told by itself: what keeps it, what breaks it, what is told then."""

import pytest

from pannier.common.v1 import generation_pb2
from services.balancer import convert_contents as contents

SYSTEM = generation_pb2.CHAT_ROLE_SYSTEM
USER = generation_pb2.CHAT_ROLE_USER
ASSISTANT = generation_pb2.CHAT_ROLE_ASSISTANT
TOOL = generation_pb2.CHAT_ROLE_TOOL
Message = generation_pb2.ChatMessage
PNG = b"\x89PNG\r\n\x1a\n"
CALL = {"name": "t", "arguments_json": "{}"}


def fields(violations):
    return [violation.field for violation in violations]


def images(*files):
    return fields(contents.image_violations([("images", files)]))


def conversation(*messages):
    return fields(contents.conversation_violations([Message(**each) for each in messages]))


def test_a_conversation_has_1_to_256_messages_of_a_million_characters():
    one = {"role": USER, "content": "a"}
    assert conversation() == ["messages"]
    assert conversation(*[one] * 256) == []
    assert conversation(*[one] * 257) == ["messages"]
    half = {"role": USER, "content": "a" * 500_000}
    assert conversation(half, half) == []
    assert conversation(half, half, one) == ["messages"]


@pytest.mark.parametrize(
    "more", [{"thinking": "t"}, {"tool_calls": [{"name": "t", "arguments_json": '{"a":1}'}]}]
)
def test_thoughts_and_arguments_count_as_characters(more):
    full = {"role": USER, "content": "a" * 1_000_000}
    assert conversation(full, {"role": ASSISTANT, "tool_calls": [CALL]} | more)[-1] == "messages"


def test_a_message_may_lack_content_only_where_it_has_images_or_tool_calls():
    assert conversation({"role": USER}) == ["messages[0].content"]
    assert conversation({"role": ASSISTANT, "thinking": "t"}) == ["messages[0].content"]
    assert conversation({"role": USER, "images": [PNG]}) == []
    assert conversation({"role": ASSISTANT, "tool_calls": [CALL]}) == []


@pytest.mark.parametrize("role", [SYSTEM, USER, TOOL])
def test_only_the_model_thinks_and_calls_tools(role):
    message = {"role": role, "content": "a", "thinking": "t", "tool_calls": [CALL]}
    assert conversation(message) == ["messages[0].thinking", "messages[0].tool_calls"]
    assert conversation(message | {"role": ASSISTANT}) == []


@pytest.mark.parametrize("role", [SYSTEM, USER, ASSISTANT])
def test_only_a_tool_gives_results(role):
    message = {"role": role, "content": "a", "tool_name": "t", "tool_call_id": "c"}
    assert conversation(message) == ["messages[0].tool_name", "messages[0].tool_call_id"]
    assert conversation(message | {"role": TOOL}) == []


def test_a_tool_call_has_a_name_and_an_object_of_arguments():
    calls = [{}, {"name": "t", "arguments_json": "[]"}, CALL | {"name": "t" * 129}]
    assert conversation({"role": ASSISTANT, "tool_calls": calls}) == [
        "messages[0].tool_calls[0].name",
        "messages[0].tool_calls[0].arguments_json",
        "messages[0].tool_calls[1].arguments_json",
        "messages[0].tool_calls[2].name",
    ]


def test_images_are_png_or_jpeg_files():
    assert images(PNG, b"\xff\xd8\xff\xe0") == []
    assert images(b"", b"GIF89a", PNG[:7], b"\xff\xd8") == [
        "images[0]",
        "images[1]",
        "images[2]",
        "images[3]",
    ]
    said = {"role": USER, "content": "a"}
    assert conversation(said, said | {"images": [PNG, b"RIFF"]}) == ["messages[1].images[1]"]


def test_a_request_has_at_most_16_images_in_all():
    assert images(*[PNG] * 16) == []
    assert images(*[PNG] * 17) == ["images"]
    eight = {"role": USER, "images": [PNG] * 8}
    assert conversation(eight, eight) == []
    assert conversation(eight, eight, {"role": USER, "images": [PNG]}) == ["messages[2].images"]


def test_a_request_has_at_most_20_mib_of_images_in_all():
    half = PNG + bytes(10 * 1024 * 1024 - len(PNG))
    assert images(half, half) == []
    assert images(half, half + b".") == ["images"]
    said = [{"role": USER, "images": [half]}, {"role": USER, "images": [half + b"."]}]
    assert conversation(*said) == ["messages[1].images"]


def tools(*definitions):
    return fields(
        contents.tool_violations([generation_pb2.ToolDefinition(**each) for each in definitions])
    )


def test_a_tool_has_a_name_and_a_schema_and_there_are_at_most_128():
    tool = {"name": "t" * 128, "parameters_json_schema": '{"type": "object"}'}
    assert tools() == []
    assert tools(*[tool] * 128) == []
    assert tools(*[tool] * 129) == ["tools"]
    assert tools(tool | {"name": ""}, tool | {"name": "t" * 129}) == [
        "tools[0].name",
        "tools[1].name",
    ]


def test_tools_have_a_million_characters_in_all():
    half = {"name": "t", "description": "d" * 499_998, "parameters_json_schema": "{}"}
    assert tools(half, half) == []
    assert tools(half, half, {"name": "t", "description": "d"}) == ["tools"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "1", '"a"', "null", "{'a':1}", '{"a":NaN}', "{}{}"]
)
def test_json_that_is_no_object_is_refused(text):
    assert fields(contents.object_violations("at", text)) == ["at"]


def test_an_object_may_be_written_in_any_way_json_allows():
    assert fields(contents.object_violations("at", ' {"b" : 1E9,\n"a": [1.10, null]} ')) == []
    assert fields(contents.object_violations("at", '{"n":123456789012345678901234567890}')) == []


def test_an_object_has_at_most_a_million_characters():
    text = '{"a":"' + "x" * 999_992 + '"}'
    assert fields(contents.object_violations("at", text)) == []
    assert fields(contents.object_violations("at", text + " ")) == ["at"]


def test_what_is_wrong_with_json_is_told():
    def told(text):
        (violation,) = contents.object_violations("at", text)
        return violation.description

    assert told("[1]") == "Must be a JSON object, is '[1]'."
    assert "line 1 column 2" in told("{")
