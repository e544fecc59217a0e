"""Which answers would do for the next caller."""

import pytest

from pannier.cache.v1 import cache_service_pb2 as pb
from pannier.common.v1 import generation_pb2 as generation
from services.cache.convert import is_reusable


@pytest.mark.parametrize(
    ("reason", "limited", "reusable"),
    [
        (generation.FINISH_REASON_STOP, False, True),
        (generation.FINISH_REASON_STOP, True, True),
        (generation.FINISH_REASON_LENGTH, False, False),
        (generation.FINISH_REASON_LENGTH, True, True),
        (99, True, False),
    ],
)
def test_a_cut_answer_is_reusable_only_where_the_caller_set_the_limit(
    reason, limited, reusable
) -> None:
    sampling = generation.SamplingOptions(max_output_token_count=5 if limited else None)
    request = pb.StoreInferenceRequest(
        key=pb.InferenceKey(sampling=sampling), inference=pb.Inference(finish_reason=reason)
    )
    assert is_reusable(request) is reusable
