"""Reading JSON as Go does, with its error texts."""

import pytest

from services.standin.core.decode import DecodeError, Fields, decode_object


def error_of(body):
    with pytest.raises(DecodeError) as error:
        decode_object(body, "ChatRequest")
    return str(error.value)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "missing request body"),
        (b" \n", "missing request body"),
        (b'{"model":', "unexpected EOF"),
        (b'{"model":"x', "unexpected EOF"),
        (b'{"model"', "unexpected EOF"),
        (b"{model}", "invalid character 'm' looking for beginning of object key string"),
        (b'{"model":x}', "invalid character 'x' looking for beginning of value"),
        (b'{"model" 1}', "invalid character '1' after object key"),
        (b'{"model":1 2}', "invalid character '2' after object key:value pair"),
        (b'{"model":NaN}', "invalid character 'N' looking for beginning of value"),
        (b"[]", "json: cannot unmarshal array into Go value of type api.ChatRequest"),
    ],
)
def test_a_bad_body_is_refused_in_gos_words(body, text):
    assert error_of(body) == text


def test_names_have_no_case_and_the_last_of_duplicates_wins():
    assert decode_object(b'{"Model":"a","MODEL":"b"}', "X") == {"model": "b"}


def test_what_follows_the_object_is_ignored():
    assert decode_object(b'{"model":"a"} trailing', "X") == {"model": "a"}


@pytest.mark.parametrize(
    ("value", "kind"), [(1, "number"), ([], "array"), ({}, "object"), (True, "bool")]
)
def test_a_field_of_the_wrong_type_is_named(value, kind):
    with pytest.raises(DecodeError) as error:
        Fields({"model": value}, "ChatRequest").text("model")
    assert str(error.value) == (
        f"json: cannot unmarshal {kind} into Go struct field ChatRequest.model of type string"
    )


def test_null_is_as_good_as_absent():
    fields = Fields({"model": None, "stream": None, "options": None, "messages": None}, "X")
    assert fields.text("model") == ""
    assert fields.flag("stream", default=True)
    assert fields.mapping("options") == {}
    assert fields.items("messages") == []


def test_an_unpaired_surrogate_becomes_the_replacement_character():
    values = decode_object(b'{"prompt":"a\\ud800b"}', "X")
    assert Fields(values, "X").text("prompt") == "a\ufffdb"
