import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.balancer.adapters import wire_listings
from services.balancer.core.failures import AttemptFailed
from services.balancer.core.models import Capability, LoadedModel


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
    old, new = wire_listings.installed_models(body)
    assert old.description.capabilities is None
    assert new.description.capabilities == {Capability.COMPLETION}
    assert (new.family, new.description.context_token_count) == ("llama", 8192)


def loaded(**values):
    (model,) = wire_listings.loaded_models(
        orjson.dumps({"models": [{"name": "m:latest"} | values]})
    )
    return model


def test_a_loaded_model_tells_its_memory_window_and_end():
    model = loaded(
        digest="d" * 64,
        size=300,
        size_vram=200,
        context_length=4096,
        expires_at="2026-11-21T05:00:00.123456789+02:00",
    )
    assert model == LoadedModel(
        name="m:latest",
        digest="d" * 64,
        size_bytes=300,
        vram_bytes=200,
        context_token_count=4096,
        expires_at=pytest.approx(1795230000.123456, abs=1e-6),
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:01:00Z", 60.0),
        ("1970-01-01T00:01:00.5Z", 60.5),
        ("1970-01-01T00:01:00.000000001-01:00", 3660.0),
        ("2319-03-01T00:00:00Z", 11018419200.0),
        ("0001-01-01T00:00:00Z", None),
        ("1970-01-01T00:01:00", None),
        ("soon", None),
        (None, None),
        ({}, None),
    ],
)
def test_the_end_is_read_as_go_writes_it(text, seconds):
    assert loaded(expires_at=text).expires_at == seconds


def test_what_an_old_server_does_not_tell_of_a_loaded_model_is_not_known():
    assert loaded() == LoadedModel(name="m:latest")


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
    description = wire_listings.model_description(body)
    assert description.capabilities == {Capability.EMBEDDING}
    assert (description.embedding_dimension, description.context_token_count) == (384, 512)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["models", "name", "details", "capabilities", "model_info", "general.architecture",
             "size", "expires_at"]
        ),
        children,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.binary(max_size=200) | JSON.map(orjson.dumps))
def test_bytes_of_any_kind_are_a_listing_or_a_failure_and_nothing_else(data):
    for read in (
        wire_listings.installed_models,
        wire_listings.loaded_models,
        wire_listings.model_description,
    ):
        try:
            read(data)
        except AttemptFailed:
            continue
