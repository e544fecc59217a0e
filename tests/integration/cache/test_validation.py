"""Callers learn which fields are wrong, all at once."""

import grpc
import numpy as np
import pytest

from pannier.cache.v1 import cache_service_pb2 as pb
from services.common.errors import StatusCode
from services.common.status import error_from_call

DIGEST = "0123456789abcdef" * 4


async def test_every_bad_vector_of_a_batch_is_named_and_nothing_is_stored(cache) -> None:
    good = np.ones(4, "<f4")
    vectors = {
        "good": good,
        "nan": np.array([1, np.nan, 1, 1], "<f4"),
        "zero": np.zeros(4, "<f4"),
        "short": good[:3],
    }
    request = pb.StoreEmbeddingsRequest(
        space=pb.EmbeddingSpace(model_digest=DIGEST),
        entries=[
            pb.EmbeddingEntry(text=name, vector={"float32_le": each.tobytes(), "dimension": 4})
            for name, each in vectors.items()
        ],
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cache.stub.StoreEmbeddings(request)
    error = error_from_call(caught.value)
    assert (error.status_code, error.error_reason) == (
        StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
    )
    assert [each.field for each in error.violations] == [
        f"entries[{number}].vector.float32_le" for number in (1, 2, 3)
    ]
    found = await cache.stub.LookupEmbeddings(
        pb.LookupEmbeddingsRequest(space=request.space, texts=["good"])
    )
    assert found.lookups[0].outcome == pb.LOOKUP_OUTCOME_MISS


async def test_a_request_that_is_wrong_everywhere_still_gets_its_answer(cache) -> None:
    request = pb.LookupEmbeddingsRequest(texts=[""] * 512)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cache.stub.LookupEmbeddings(request)
    error = error_from_call(caught.value)
    assert error.error_reason == "INVALID_FIELD"
    assert error.violations[0].field == "space.model_digest"
