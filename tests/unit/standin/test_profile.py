"""Profiles: what they may say, and the models that they make."""

import math
import tomllib
from dataclasses import fields

import pytest

from services.standin.core.catalogue import Engine, Speed
from services.standin.core.profile import _KINDS, ModelSpec, ProfileError, parse_profile, scale

EXAMPLE = """
builtin_models = false

[[models]]
name = "llama3.1:8b"
capabilities = ["tools"]
version = "1"
size_bytes = 4_900_000_000
load_seconds = 6
prefill_tokens_per_second = 900.0
decode_tokens_per_second = 35
context_tokens = 131072
parallel = 4

[[models]]
name = "nomic-embed-text"
capability = "embedding"
embedding_length = 768

[[models]]
name = "qwen3:32b"
remote = true
"""


def make(**values):
    return ModelSpec(**{"name": "m"} | values).model(Speed(), speed_ratio=1, time_scale=1)


def test_a_profile_lists_models():
    profile = parse_profile(tomllib.loads(EXAMPLE))
    chat, embedding, remote = profile.models
    assert not profile.builtin_models
    assert (chat.capabilities, chat.parallel, chat.load_seconds) == (("tools",), 4, 6)
    assert (embedding.capability, embedding.embedding_length) == ("embedding", 768)
    assert (chat.remote, remote.remote) == (False, True)


def test_every_field_of_a_model_can_be_given():
    assert set(_KINDS) == {entry.name for entry in fields(ModelSpec)}


@pytest.mark.parametrize(
    "document",
    [
        {"colour": 1},
        {"builtin_models": "no"},
        {"models": {}},
        {"models": [{}]},
        {"models": [{"name": "m", "colour": 1}]},
        {"models": [{"name": "m", "size_bytes": "big"}]},
        {"models": [{"name": "a b"}]},
        {"models": [{"name": "m", "capability": "singing"}]},
        {"models": [{"name": "m", "decode_tokens_per_second": 0}]},
        {"models": [{"name": "m", "context_tokens": 0}]},
    ],
)
def test_a_wrong_profile_is_refused(document):
    with pytest.raises(ProfileError):
        parse_profile(document)


def test_what_a_model_does_not_say_is_the_servers():
    model = make(decode_tokens_per_second=5.0)
    assert model.speed == Speed(
        load_seconds=Speed().load_seconds,
        prefill_tokens_per_second=Speed().prefill_tokens_per_second,
        decode_tokens_per_second=5.0,
    )


def test_another_version_or_context_is_another_digest():
    digests = {make().digest, make(version="2").digest, make(context_tokens=99).digest}
    assert len(digests) == 3
    assert make(load_seconds=1).digest == make(load_seconds=2).digest == make(name="M").digest


def test_an_embedding_model_has_one_slot_and_a_length():
    model = make(capability="embedding", parallel=8)
    assert (model.parallel, model.embedding_length, model.engine) == (1, 384, Engine.SYNTHETIC)


def test_a_slow_server_computes_slowly_and_loads_less_slowly():
    slow = scale(Speed(load_seconds=4), speed_ratio=0.25, time_scale=1)
    assert slow.load_seconds == pytest.approx(8)
    assert slow.decode_tokens_per_second == pytest.approx(200 * 0.25)


def test_a_time_scale_makes_all_of_it_quicker():
    quick = scale(Speed(load_seconds=4), speed_ratio=0.35, time_scale=20)
    assert quick.load_seconds == pytest.approx(4 / math.sqrt(0.35) / 20)
    assert quick.prefill_tokens_per_second == pytest.approx(20_000 * 0.35 * 20)
