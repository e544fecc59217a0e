"""From requests to answers."""

import json

import pytest

from services.standin.core.complete import (
    FormatError,
    TooLongError,
    check_format,
    complete_extractive,
)
from services.standin.core.options import parse_options
from services.standin.core.requests import parse_chat, parse_generate
from services.standin.core.tokens import TokenCodec
from services.standin.server import find_weights

CODEC = TokenCodec(find_weights() / "tokenizer.json")
FACTS = "Paris is the capital of France. Rome is the capital of Italy."


def run(request, context_tokens=4096, **options):
    return complete_extractive(request, parse_options(options), CODEC, context_tokens)


def generate(**fields):
    return parse_generate(json.dumps({"model": "m"} | fields).encode())


def chat(*messages, **fields):
    entries = [{"role": role, "content": content} for role, content in messages]
    return parse_chat(json.dumps({"model": "m", "messages": entries} | fields).encode())


def text_of(completion):
    return "".join(completion.texts)


def test_num_predict_cuts_the_answer_and_says_so():
    cut = run(generate(prompt=f"{FACTS} Capital of Italy?"), num_predict=2)
    assert (text_of(cut), cut.done_reason) == ("Rome is", "length")


def test_an_answer_of_just_num_predict_tokens_is_complete():
    whole = run(generate(prompt=f"{FACTS} Capital of Italy?"))
    same = run(generate(prompt=f"{FACTS} Capital of Italy?"), num_predict=len(whole.texts))
    assert same == whole
    assert whole.done_reason == "stop"


def test_a_stop_text_ends_the_answer():
    assert text_of(run(generate(prompt=f"{FACTS} Capital of Italy?"), stop=[" is"])) == "Rome"


def test_the_last_user_message_is_the_prompt():
    completion = run(chat(("user", "Hi"), ("assistant", "Yes?"), ("user", f"{FACTS} Italy?")))
    assert text_of(completion).startswith("Rome")


def test_old_messages_are_dropped_until_the_rest_fits():
    request = chat(("user", "old " * 100), ("assistant", "old " * 20), ("user", f"{FACTS} Italy?"))
    completion = run(request, context_tokens=60)
    assert len(completion.prompt.content) < 60
    assert text_of(completion).startswith("Rome")


def test_the_system_message_is_kept():
    request = chat(("system", "rule " * 20), ("user", "old " * 100), ("user", "Hi"))
    assert len(run(request, context_tokens=60).prompt.content) == 21


def test_a_prompt_beyond_the_context_loses_its_middle():
    request = generate(prompt="Filler text here. " * 200 + f"{FACTS} Capital of Italy?")
    completion = run(request, context_tokens=100)
    assert len(completion.prompt.content) < 100
    assert text_of(completion).startswith("Rome")


def test_a_prompt_beyond_the_context_is_refused_if_it_may_not_be_cut():
    with pytest.raises(TooLongError):
        run(generate(prompt="word " * 100, truncate=False), context_tokens=100)


def test_a_schema_gets_a_value_that_conforms():
    schema = {
        "type": "object",
        "properties": {
            "queries": {"type": "array", "items": {"type": "string"}},
            "kind": {"enum": ["a", "b"]},
            "count": {"type": "integer"},
            "sure": {"type": "boolean"},
        },
    }
    value = json.loads(text_of(run(generate(prompt=f"{FACTS} Italy?", format=schema))))
    assert value["queries"][0].startswith("Rome")
    assert (value["kind"], value["count"], value["sure"]) == ("a", 0, False)


@pytest.mark.parametrize("value", ["yaml", 3, True, []])
def test_an_unknown_format_is_refused(value):
    with pytest.raises(FormatError, match="invalid format"):
        check_format(value)


@pytest.mark.parametrize("value", [None, "", "json", {"type": "object"}])
def test_a_known_format_is_accepted(value):
    check_format(value)
