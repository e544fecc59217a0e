"""Which models a backend has, by what it says of its disk and its memory."""

import pytest

from services.balancer.backend import Backend
from services.balancer.core.models import InstalledModel, LoadedModel
from services.balancer.core.snapshot import Residency
from services.balancer.settings import parse_endpoint

A, B = "a" * 64, "b" * 64


def installed(name, digest):
    return InstalledModel(name=name, digest=digest, size_bytes=1000)


def loaded(name, digest, size_bytes=1000):
    return LoadedModel(name=name, digest=digest, size_bytes=size_bytes)


@pytest.fixture
def backend():
    return Backend(endpoint=parse_endpoint("http://h:1"))


def test_names_of_the_same_digest_are_one_model(backend):
    listed = (installed("one", A), installed("other", B), installed("alias", A))
    backend.take_installed(listed, 2)
    models = backend.models
    assert models["alias:latest"] is models["one:latest"]
    assert models["other:latest"] is not models["one:latest"]
    assert models["one:latest"].names == {"alias:latest": "alias", "one:latest": "one"}
    assert models["one:latest"].key == "alias:latest"
    assert len(backend.states()) == 2


def test_models_without_a_digest_are_told_apart_by_their_names(backend):
    backend.take_installed((installed("one", ""), installed("other", "")), 1)
    first = backend.models["one:latest"]
    assert len(backend.states()) == 2
    backend.take_installed((installed("one", ""), installed("other", "")), 1)
    assert backend.models["one:latest"] is first


def test_a_name_that_is_added_or_taken_away_changes_nothing_of_what_is_loaded(backend):
    backend.take_installed((installed("one", A),), 1)
    state = backend.models["one:latest"]
    backend.take_loaded((loaded("one", A),), 0.0)
    backend.take_installed((installed("alias", A), installed("one", A)), 1)
    assert backend.models == {"alias:latest": state, "one:latest": state}
    assert state.residency is Residency.WARM
    backend.take_loaded((loaded("one", A),), 0.0)
    assert backend.warm_models() == [state]
    backend.take_installed((installed("alias", A),), 1)
    assert backend.models == {"alias:latest": state}


def test_another_version_under_a_name_is_another_model(backend):
    backend.take_installed((installed("one", A),), 1)
    before = backend.models["one:latest"]
    backend.take_installed((installed("one", B), installed("old", A)), 1)
    assert backend.models["old:latest"] is before
    assert backend.models["one:latest"] is not before


def test_two_names_in_memory_are_one_model_that_takes_room_once(backend):
    backend.take_installed((installed("one", A), installed("alias", A)), 1)
    backend.room = backend.room.__class__(model_limit=1)
    backend.take_loaded((loaded("one", A),), 0.0)
    assert len(backend.warm_models()) == 1
    assert backend.room.model_limit == 1
