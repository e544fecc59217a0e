from dataclasses import replace

from services.balancer.core.models import Holdings, InstalledModel, merge

MODEL = InstalledModel(name="m:latest", digest="1" * 64)


def holdings(*models, loaded=()):
    return Holdings(
        installed={model.name.lower(): model for model in models}, loaded_keys=frozenset(loaded)
    )


def test_models_are_sorted_and_name_their_backends():
    other = InstalledModel(name="A:latest", digest="2" * 64)
    merged = merge(
        {"y": holdings(MODEL, other, loaded={"m:latest"}), "x": holdings(MODEL), "z": holdings()}
    )
    assert [each.key for each in merged] == ["a:latest", "m:latest"]
    assert merged[1].backend_ids == ("x", "y")
    assert merged[1].loaded_backend_ids == ("y",)
    assert not merged[1].drifted


def test_digest_of_most_backends_stands_for_a_drifted_model():
    drifted = replace(MODEL, digest="0" * 64)
    merged = merge({"a": holdings(drifted), "b": holdings(MODEL), "c": holdings(MODEL)})
    assert merged[0].model == MODEL
    assert merged[0].drifted
