"""Which models a backend has, by what it says of its disk and its memory."""

import pytest

from services.balancer.backend import Backend
from services.balancer.core.models import InstalledModel, LoadedModel
from services.balancer.core.snapshot import Residency
from services.balancer.settings import parse_endpoint

A, B, C = "a" * 64, "b" * 64, "c" * 64


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


@pytest.fixture
def crowded(backend):
    """A backend with one model in memory, of three that it is thought to have room for."""
    backend.take_installed((installed("one", A), installed("other", B), installed("third", C)), 1)
    backend.take_loaded((loaded("one", A),), 0.0)
    return backend


def begin_load(backend, key):
    backend.loading_key = key
    backend.models[key].residency = Residency.LOADING


def end_load(backend, key):
    backend.loading_key = None
    backend.models[key].residency = Residency.WARM
    backend.loaded_lately = True


def test_a_load_that_pushes_a_model_out_shows_that_both_do_not_fit(crowded):
    begin_load(crowded, "other:latest")
    # It goes before the load begins, and is seen to be gone long before the load ends.
    crowded.take_loaded((), 0.0)
    assert not crowded.room.fits((1000, 1000))
    end_load(crowded, "other:latest")
    crowded.take_loaded((loaded("other", B),), 0.0)
    assert not crowded.room.fits((1000, 1000))
    assert crowded.room.fits((5000,))


def test_a_load_that_is_over_before_anybody_looks_shows_it_as_well(crowded):
    begin_load(crowded, "other:latest")
    end_load(crowded, "other:latest")
    crowded.take_loaded((loaded("other", B),), 0.0)
    assert not crowded.room.fits((1000, 1000))


def test_what_stays_during_a_load_counts_with_what_goes(crowded):
    crowded.take_loaded((loaded("one", A), loaded("third", C, 500)), 0.0)
    begin_load(crowded, "other:latest")
    crowded.take_loaded((loaded("third", C, 500),), 0.0)
    assert crowded.room.fits((1000, 1000))
    assert not crowded.room.fits((1000, 1000, 500))


def test_a_model_whose_runner_dies_says_nothing_of_room(crowded):
    crowded.take_loaded((loaded("one", A), loaded("other", B)), 0.0)
    crowded.take_loaded((loaded("one", A),), 0.0)
    crowded.take_loaded((), 0.0)
    assert crowded.room.fits((1000, 1000, 1000))


def test_what_is_found_to_fit_after_all_does(crowded):
    begin_load(crowded, "other:latest")
    crowded.take_loaded((), 0.0)
    end_load(crowded, "other:latest")
    crowded.take_loaded((loaded("one", A), loaded("other", B)), 0.0)
    assert crowded.room.fits((1000, 1000))


def test_a_model_that_has_left_the_memory_may_have_all_its_slots_when_it_comes_again(backend):
    backend.take_installed((installed("one", A),), 2)
    state = backend.models["one:latest"]
    backend.take_loaded((loaded("one", A),), 0.0)
    state.answers_fewer = True
    backend.take_loaded((loaded("one", A),), 0.0)
    assert state.answers_fewer
    backend.take_loaded((), 0.0)
    assert not state.answers_fewer
