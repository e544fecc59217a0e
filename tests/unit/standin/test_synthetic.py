"""The output of synthetic models."""

import itertools
import json
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.standin.core.complete import TooLongError, complete_synthetic, repeat
from services.standin.core.options import parse_options
from services.standin.core.requests import parse_chat, parse_generate
from services.standin.core.synthetic import (
    WORDS,
    count_tokens,
    decode_ids,
    embed,
    encode_ids,
    read_script,
    write_words,
)

TOOLS = [{"type": "function", "function": {"name": "add"}}]


def run(request, context_tokens=4096, thinks=False, **options):
    made = parse_options(options, shift=request.shift)
    return complete_synthetic(request, made, context_tokens, thinks=thinks)


def generate(prompt, **fields):
    return parse_generate(json.dumps({"model": "m", "prompt": prompt} | fields).encode())


def chat(*messages, **fields):
    entries = [{"role": role, "content": content} for role, content in messages]
    return parse_chat(json.dumps({"model": "m", "messages": entries} | fields).encode())


def test_every_word_is_a_token():
    assert {len(word) for word in WORDS} == {4}
    assert len(set(WORDS)) == len(WORDS)


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2)])
def test_a_token_is_four_characters(text, tokens):
    assert count_tokens(text) == tokens


@given(st.integers(0, 2**64), st.integers(0, 300))
def test_no_word_follows_itself(seed, tokens):
    words = write_words(seed, tokens)
    assert len(words) == tokens
    assert all(one != other for one, other in itertools.pairwise(words))


def test_a_prompt_orders_the_length_of_its_answer():
    assert len(run(generate("Tell. <<tokens=137>>")).texts) == 137


def test_lengths_that_are_not_ordered_are_spread_around_the_median():
    lengths = [read_script(f"prompt {number}").tokens for number in range(2000)]
    assert 115 < statistics.median(lengths) < 145
    assert min(lengths) < 60
    assert max(lengths) > 300


def test_the_same_prompt_gets_the_same_answer_and_another_one_another():
    assert run(generate("one")).texts == run(generate("one")).texts
    assert run(generate("one")).texts != run(generate("two")).texts


def test_num_predict_cuts_and_says_so():
    cut = run(generate("<<tokens=9>>"), num_predict=4)
    assert (len(cut.texts), cut.done_reason) == (4, "length")
    whole = run(generate("<<tokens=9>>"), num_predict=9)
    assert (len(whole.texts), whole.done_reason) == (9, "stop")


def test_a_full_context_ends_an_answer_that_may_not_shift():
    full = run(generate("<<tokens=99>>", shift=False), context_tokens=20)
    assert (len(full.texts), full.done_reason) == (20 - 4, "length")


def test_a_stop_text_ends_the_answer():
    text = "".join(run(generate("<<tokens=20>>"), stop=["a"]).texts)
    assert "a" not in text


def test_thinking_comes_first_where_the_model_can_and_may():
    prompt = "<<thinking=5>><<tokens=3>>"
    assert run(generate(prompt), thinks=True).thinking_tokens == 5
    assert len(run(generate(prompt), thinks=True).texts) == 8
    assert len(run(generate(prompt), thinks=False).texts) == 3
    assert len(run(generate(prompt, think=False), thinks=True).texts) == 3


def test_a_tool_is_called_if_it_is_offered_and_wanted_by_the_last_message():
    wish = ("user", '<<tool=add {"a": 1}>>')
    [made] = run(chat(wish, tools=TOOLS)).tool_calls
    assert made["function"] == {"index": 0, "name": "add", "arguments": {"a": 1}}
    assert run(chat(wish)).tool_calls == ()
    assert run(chat(wish, ("tool", "2"), tools=TOOLS)).tool_calls == ()


def test_a_tool_with_arguments_that_are_no_object_is_not_called():
    assert run(chat(("user", "<<tool=add [1>>"), tools=TOOLS)).tool_calls == ()


def test_a_schema_gets_json():
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
    assert set(json.loads("".join(run(generate("x", format=schema)).texts))) == {"answer"}


def test_a_conversation_goes_on_where_its_last_answer_ended():
    first = run(chat(("user", "Hello <<tokens=5>>")))
    answer = "".join(first.texts)
    then = run(chat(("user", "Hello <<tokens=5>>"), ("assistant", answer), ("user", "More")))
    assert then.prompt.content.startswith(first.content_after(5))
    assert not then.prompt.content.startswith(first.content_after(5) + "x")


def test_the_context_of_a_reply_is_the_beginning_of_the_next_prompt():
    first = run(generate("Hello <<tokens=3>>"))
    then = run(generate("More", context=first.context))
    assert then.prompt.content.startswith(first.content_after(3))


def test_images_take_tokens_and_different_ones_differ():
    one, other = (run(generate("x", images=[image])).prompt for image in ("AAAA", "BBBB"))
    assert one.tokens == other.tokens == 256 + 1
    assert one.content != other.content


def test_a_prompt_beyond_the_context_is_cut_or_refused():
    assert run(generate("word " * 100), context_tokens=50).prompt.tokens < 50
    with pytest.raises(TooLongError):
        run(generate("word " * 100, truncate=False), context_tokens=50)


def test_a_repeated_answer_is_one_token_over_and_over():
    assert len(set(repeat(run(generate("x")), 31).texts)) == 1


@given(st.text())
def test_ids_can_be_turned_into_their_text_again(text):
    assert decode_ids(encode_ids(text)) == text.replace("\0", "")


def test_embeddings_have_unit_length_and_depend_on_the_text_alone():
    assert np.linalg.norm(embed("text", 768)) == pytest.approx(1.0, abs=1e-5)
    assert np.array_equal(embed("text", 768), embed("text", 768))
    assert abs(embed("text", 768) @ embed("other", 768)) < 0.2
