"""Callers learn which fields are wrong, all at once, and nothing is stored."""

import grpc
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pannier.cache.v1 import cache_admin_service_pb2, invalidation_pb2
from pannier.cache.v1 import cache_service_pb2 as pb
from pannier.common.v1 import generation_pb2
from services.common.errors import StatusCode
from services.common.status import error_from_call

DIGEST = "0123456789abcdef" * 4
SPACE = pb.EmbeddingSpace(model_digest=DIGEST)
CHUNKS_KEY = pb.ChunksKey(content_digest=DIGEST, chunker_fingerprint="markdown 1")
CHUNKS = pb.ChunkSet(spans=[pb.ChunkSpan(char_end=5, token_count=1)])


def entry(text: str, components: np.ndarray, dimension: int = 4) -> pb.EmbeddingEntry:
    vector = {"float32_le": components.astype("<f4").tobytes(), "dimension": dimension}
    return pb.EmbeddingEntry(text=text, vector=vector)


async def refused(call, request) -> list[str]:
    """Returns the fields at fault."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(request)
    error = error_from_call(caught.value)
    assert (error.status_code, error.error_reason) == (
        StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
    )
    return [each.field for each in error.violations]


async def is_stored(cache, text: str) -> bool:
    request = pb.LookupEmbeddingsRequest(space=SPACE, texts=[text])
    found = await cache.stub.LookupEmbeddings(request)
    return found.lookups[0].outcome != pb.LOOKUP_OUTCOME_MISS


async def test_every_bad_vector_of_a_batch_is_named_and_nothing_is_stored(cache) -> None:
    good = np.ones(4)
    vectors = {
        "good": good,
        "nan": np.array([1, np.nan, 1, 1]),
        "zero": np.zeros(4),
        "short": good[:3],
    }
    request = pb.StoreEmbeddingsRequest(
        space=SPACE, entries=[entry(name, each) for name, each in vectors.items()]
    )
    assert await refused(cache.stub.StoreEmbeddings, request) == [
        f"entries[{number}].vector.float32_le" for number in (1, 2, 3)
    ]
    assert not await is_stored(cache, "good")


async def test_vectors_of_another_dimension_are_refused(cache) -> None:
    space = pb.EmbeddingSpace(model_digest=DIGEST, dimension=8)
    request = pb.StoreEmbeddingsRequest(space=space, entries=[entry("a", np.ones(4))])
    assert await refused(cache.stub.StoreEmbeddings, request) == ["entries[0].vector.dimension"]
    mixed = [entry("a", np.ones(4)), entry("b", np.ones(3), dimension=3)]
    request = pb.StoreEmbeddingsRequest(space=SPACE, entries=mixed)
    assert await refused(cache.stub.StoreEmbeddings, request) == ["entries[1].vector.dimension"]
    assert not await is_stored(cache, "a")


@pytest.mark.parametrize(
    ("control", "field"),
    [
        ({"ttl": Duration()}, "control.ttl"),
        ({"ttl": Duration(seconds=-1)}, "control.ttl"),
        ({"ttl": Duration(seconds=7 * 86_400 + 1)}, "control.ttl"),
        ({"basis_time": Timestamp(seconds=-1)}, "control.basis_time"),
        ({"tags": [{"custom": str(number)} for number in range(17)]}, "control.tags"),
        ({"tags": [{}]}, "control.tags[0]"),
    ],
)
async def test_a_value_with_impossible_wishes_is_not_stored(cache, control, field) -> None:
    request = pb.StoreEmbeddingsRequest(
        space=SPACE, entries=[entry("a", np.ones(4))], control=control
    )
    assert await refused(cache.stub.StoreEmbeddings, request) == [field]
    assert not await is_stored(cache, "a")


async def test_sixteen_tags_are_as_many_as_there_may_be(cache) -> None:
    tags = [
        {"document": {"collection": f"c{number}", "document_id": "d" * 1_000}}
        for number in range(16)
    ]
    request = pb.StoreChunksRequest(key=CHUNKS_KEY, chunks=CHUNKS, control={"tags": tags})
    assert (await cache.stub.StoreChunks(request)).stored
    request.control.tags.add(custom="one too many")
    assert await refused(cache.stub.StoreChunks, request) == ["control.tags"]


async def test_a_request_that_is_wrong_everywhere_still_gets_its_answer(cache) -> None:
    request = pb.LookupEmbeddingsRequest(
        space=pb.EmbeddingSpace(namespace="not allowed"),
        texts=[""] * 512,
        control={"max_age": Duration(seconds=-1), "min_create_time": Timestamp(nanos=-1)},
    )
    fields = await refused(cache.stub.LookupEmbeddings, request)
    assert fields[:5] == [
        "space.model_digest",
        "space.namespace",
        "control.max_age",
        "control.min_create_time",
        "texts[0]",
    ]


async def test_everything_wrong_with_an_invalidation_is_told_at_once(cache) -> None:
    selectors = [
        {"everything": False},
        {"namespace": "A b"},
        {"model_digest": "latest"},
        {"tag": {}},
        {"tag": {"document": {"collection": "c"}}},
        {"grown_collection": ""},
        {},
    ]
    request = invalidation_pb2.InvalidateRequest(selectors=selectors, dry_run=False)
    assert await refused(cache.stub.Invalidate, request) == [
        "selectors[0].everything",
        "selectors[1].namespace",
        "selectors[2].model_digest",
        "selectors[3].tag",
        "selectors[4].tag.document.document_id",
        "selectors[5].grown_collection",
        "selectors[6]",
        "tenant_id",
    ]


@pytest.mark.parametrize("count", [0, 65])
async def test_one_to_sixty_four_things_are_invalidated_at_once(cache, count) -> None:
    request = invalidation_pb2.InvalidateRequest(selectors=[{"namespace": "a"}] * count)
    assert await refused(cache.stub.Invalidate, request) == ["selectors"]


@pytest.mark.parametrize("threshold", [0.0, 0.949, 1.001, -1.0, float("nan"), float("inf")])
async def test_a_threshold_below_the_service_s_own_or_above_one_is_refused(
    cache, threshold
) -> None:
    request = cache_admin_service_pb2.SetSimilarityThresholdRequest(threshold=threshold)
    call = cache.admin_stub.SetSimilarityThreshold
    assert await refused(call, request) == ["threshold"]
    request.namespace = "A"
    assert await refused(call, request) == ["namespace", "threshold"]


async def test_values_beyond_a_mebibyte_are_refused_with_their_size(cache) -> None:
    key = pb.InferenceKey(model_digest=DIGEST, prompt=pb.Prompt(text="a"))
    inference = pb.Inference(
        text="x" * (1024 * 1024), finish_reason=generation_pb2.FINISH_REASON_STOP
    )
    request = pb.StoreInferenceRequest(key=key, inference=inference)
    assert await refused(cache.stub.StoreInference, request) == ["inference"]
    found = await cache.stub.LookupInference(pb.LookupInferenceRequest(key=key))
    assert found.outcome == pb.LOOKUP_OUTCOME_MISS
    many = [pb.ChunkSpan(char_start=i, char_end=i + 1, token_count=1) for i in range(150_000)]
    chunks = pb.StoreChunksRequest(key=CHUNKS_KEY, chunks=pb.ChunkSet(spans=many))
    assert await refused(cache.stub.StoreChunks, chunks) == ["chunks"]
