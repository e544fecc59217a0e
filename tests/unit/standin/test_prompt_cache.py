"""Which slot a prompt takes and what it finds there."""

from hypothesis import given
from hypothesis import strategies as st

from services.standin.core.prompt_cache import Prompt, PromptCache, count_common


def run(cache, content, answer="", characters_per_token=1):
    lease = cache.begin(Prompt(content=content, characters_per_token=characters_per_token))
    cache.end(lease, content + answer)
    return lease


def cached(cache, content, answer=""):
    return run(cache, content, answer).cached_tokens


@given(st.text("ab", max_size=20), st.text("ab", max_size=20))
def test_the_common_prefix_is_the_longest(one, other):
    length = count_common(one, other)
    assert one[:length] == other[:length]
    assert one[length : length + 1] != other[length : length + 1] or not one[length:]


def test_a_new_model_remembers_nothing():
    assert cached(PromptCache(slots=1, saved_tokens=100), "abcdef") == 0


def test_the_same_prompt_again_evaluates_one_token():
    cache = PromptCache(slots=1, saved_tokens=100)
    assert [cached(cache, "abcdef") for _ in range(2)] == [0, 5]


def test_the_answer_is_remembered_too():
    cache = PromptCache(slots=1, saved_tokens=100)
    run(cache, "abc", answer="def")
    assert cached(cache, "abcdefgh") == 6


def test_only_what_comes_before_the_first_difference_is_reused():
    cache = PromptCache(slots=1, saved_tokens=0)
    run(cache, "abcdef")
    assert cached(cache, "abXdef") == 2


def test_tokens_of_several_characters_are_reused_as_a_whole():
    cache = PromptCache(slots=1, saved_tokens=0)
    run(cache, "abcdefgh", characters_per_token=4)
    assert run(cache, "abcdefXh1234", characters_per_token=4).cached_tokens == 1


def test_one_slot_forgets_an_earlier_prompt_without_saved_prompts():
    cache = PromptCache(slots=1, saved_tokens=0)
    for content in ("aaaaaaaa", "bbbbbbbb"):
        run(cache, content)
    assert cached(cache, "aaaaaaaa") == 0


def test_one_slot_with_saved_prompts_remembers_alternating_conversations():
    cache = PromptCache(slots=1, saved_tokens=100)
    for content in ("aaaaaaaa", "bbbbbbbb"):
        run(cache, content)
    assert [cached(cache, content) for content in ("aaaaaaaa", "bbbbbbbb")] == [7, 7]


def test_the_oldest_saved_prompt_goes_when_there_are_too_many_tokens():
    cache = PromptCache(slots=1, saved_tokens=16)
    for letter in "abcd":
        run(cache, letter * 8)
    assert cached(cache, "a" * 8) == 0
    assert cached(cache, "c" * 8) == 7


def test_a_prompt_takes_the_slot_that_it_shares_most_with():
    cache = PromptCache(slots=2, saved_tokens=0)
    one = cache.begin(Prompt(content="aaaa"))
    other = cache.begin(Prompt(content="bbbb"))
    cache.end(one, "aaaa")
    cache.end(other, "bbbb")
    lease = cache.begin(Prompt(content="aaaacc"))
    assert (lease.slot, lease.cached_tokens) == (one.slot, 4)


def test_a_prompt_that_shares_hardly_anything_takes_the_slot_used_longest_ago():
    cache = PromptCache(slots=2, saved_tokens=0)
    one = cache.begin(Prompt(content="aaaa"))
    other = cache.begin(Prompt(content="bbbb"))
    cache.end(other, "bbbb")
    cache.end(one, "aaaa")
    assert cache.begin(Prompt(content="a" + "c" * 20)).slot == other.slot


def test_a_busy_slot_is_left_alone():
    cache = PromptCache(slots=2, saved_tokens=0)
    run(cache, "aaaa")
    first = cache.begin(Prompt(content="aaaa"))
    second = cache.begin(Prompt(content="aaaa"))
    assert {first.slot, second.slot} == {0, 1}
    assert second.cached_tokens == 0


@given(st.lists(st.text("ab", min_size=1, max_size=30), min_size=1, max_size=30))
def test_no_more_is_reused_than_some_earlier_prompt_shares(prompts):
    cache = PromptCache(slots=2, saved_tokens=40)
    for index, content in enumerate(prompts):
        shared = max((count_common(each, content) for each in prompts[:index]), default=0)
        reused = cached(cache, content)
        assert 0 <= reused <= min(shared, len(content) - 1)
