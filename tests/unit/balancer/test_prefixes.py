import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.balancer.core.prefixes import PrefixMemory, fingerprint

LONG = "".join(string.ascii_letters[index * 7 % 52] for index in range(4000))
# Texts of a small alphabet, long enough for blocks and alike often enough to share them.
TEXTS = st.lists(
    st.builds(lambda letter, count: letter * count, st.sampled_from("ab"), st.integers(0, 700)),
    max_size=5,
)


def memory_of(*prompts, maximum=32):
    memory = PrefixMemory(maximum)
    for parts, token_count in prompts:
        memory.note("b", "m", fingerprint(parts), token_count)
    return memory


def hit(memory, parts, token_count=1000):
    return memory.hit_tokens("b", "m", fingerprint(parts), token_count)


@given(st.lists(TEXTS, max_size=8), TEXTS, st.integers(0, 5000), st.integers(1, 4))
def test_a_hit_never_exceeds_what_the_prompt_shares_with_one_remembered(
    prompts, parts, tokens, most
):
    memory = memory_of(*((each, 100) for each in prompts), maximum=most)
    found = hit(memory, parts, tokens)
    assert found == 0 or 0.1 * tokens <= found < tokens
    text = "".join(part + "\x1e" for part in parts)
    shared = max(
        (common_length(text, "".join(part + "\x1e" for part in each)) for each in prompts),
        default=0,
    )
    assert not text or found <= tokens * shared / len(text)


def common_length(one, other):
    pairs = zip(one, other, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


@given(TEXTS, st.text(max_size=400))
def test_the_last_prompt_is_remembered_and_so_is_its_continuation(parts, answer):
    memory = memory_of((parts, 100))
    assert hit(memory, parts) == 999
    blocks = fingerprint(parts).blocks
    assert fingerprint([*parts, answer]).blocks[: len(blocks)] == blocks


@given(st.lists(TEXTS, max_size=20), st.integers(1, 5))
def test_only_so_many_prompts_are_remembered(prompts, most):
    memory = memory_of(*((parts, 10) for parts in prompts), maximum=most)
    for remembered in memory._models.get("m", {}).values():
        assert len(remembered._prompts) <= most
        known = {block for each, _ in remembered._prompts.values() for block in each.blocks}
        assert set(remembered._blocks) == known


@given(st.text(), st.text())
def test_fingerprints_are_deterministic_and_take_any_text(text, salt):
    assert fingerprint([text], salt=salt) == fingerprint([text], salt=salt)
    assert fingerprint([text], salt=salt).digest != fingerprint([text + "x"], salt=salt).digest


def test_text_that_is_no_valid_unicode_has_a_fingerprint_too():
    assert fingerprint(["\ud800" * 300]) != fingerprint(["\ud801" * 300])


def test_a_shared_beginning_is_a_hit_in_proportion():
    memory = memory_of(([LONG[:2048]], 500))
    assert hit(memory, [LONG[:2048] + "?" * 2047]) == pytest.approx(500, abs=65)


def test_an_early_difference_loses_all_behind_it():
    memory = memory_of(([LONG], 1000))
    assert hit(memory, ["!" + LONG]) == 0
    assert hit(memory, [LONG]) == 999
    assert hit(memory, [LONG[:2000] + "!" + LONG[2001:]]) == pytest.approx(450, abs=65)


def test_prompts_of_different_salt_have_nothing_in_common():
    memory = memory_of(([LONG], 1000))
    assert memory.hit_tokens("b", "m", fingerprint([LONG], salt="other"), 1000) == 0


def test_parts_are_told_apart():
    assert fingerprint(["ab", "c"]).digest != fingerprint(["a", "bc"]).digest


def test_one_token_is_always_read():
    memory = memory_of(([LONG[:255], "and more" * 100], 1000))
    assert hit(memory, [LONG[:255]], 60) == 59
    assert hit(memory, [LONG[:255]], 0) == 0


def test_a_short_beginning_is_no_hit():
    memory = memory_of(([LONG[:256]], 60))
    assert hit(memory, [LONG[:256] + "?" * 3000]) == 0
    assert hit(memory, [LONG[:256] + "?" * 2000]) > 100


def test_of_a_very_long_prompt_only_the_beginning_is_compared():
    text = LONG * 100
    prompt = fingerprint([text])
    assert len(prompt.blocks) == 512
    memory = memory_of(([text], 60_000))
    assert hit(memory, [text], 100_000) == pytest.approx(100_000 * 512 * 256 / 400_001, rel=0.01)


def test_the_prompt_used_last_outlives_the_others():
    first, second, third = ([letter * 1000] for letter in "abc")
    memory = memory_of((first, 10), (second, 10), (first, 10), (third, 10), maximum=2)
    assert hit(memory, first)
    assert not hit(memory, second)
    assert hit(memory, third)


def test_a_conversation_counts_as_one_prompt_however_long_it_gets():
    other = ["other" * 200]
    turns = [[LONG[: 500 * count]] for count in range(1, 8)]
    memory = memory_of((other, 10), *((turn, 10) for turn in turns), maximum=2)
    assert hit(memory, other)
    assert hit(memory, turns[-1])


def test_no_more_tokens_are_remembered_than_a_server_has_memory_for():
    first, second, third = ([letter * 1000] for letter in "abc")
    memory = memory_of((first, 30_000), (second, 30_000), (third, 30_000))
    assert [bool(hit(memory, each)) for each in (first, second, third)] == [False, True, True]
    memory.note("b", "m", fingerprint(["d" * 1000]), 10**6)
    assert [bool(hit(memory, each)) for each in (third, ["d" * 1000])] == [False, True]


def test_hits_are_told_per_backend_and_forgotten_at_unload():
    memory, prompt = PrefixMemory(), fingerprint([LONG])
    for backend_id in ("a", "b"):
        for model in ("m", "n"):
            memory.note(backend_id, model, prompt, 1000)
    memory.note("c", "m", fingerprint(["!" + LONG]), 1000)
    assert memory.hits("m", prompt, 1000) == {"a": 999, "b": 999}
    memory.forget("a", "m")
    assert memory.hits("m", prompt, 1000) == {"b": 999}
    assert memory.hits("n", prompt, 1000) == {"a": 999, "b": 999}
    memory.forget("b")
    assert memory.hits("m", prompt, 1000) == {}
    assert memory.hits("n", prompt, 1000) == {"a": 999}
    memory.forget("never seen")
    memory.forget("a", "never run")
    assert memory.hits("never run", prompt, 1000) == {}
