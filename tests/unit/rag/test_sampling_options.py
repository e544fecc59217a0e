"""What a caller says of sampling reaches cache and balancer as it was said."""

import pytest

from pannier.common.v1.generation_pb2 import SamplingOptions
from pannier.rag.v1 import rag_service_pb2 as pb
from services.rag.adapters.protocol import to_sampling
from services.rag.convert import question_of

EVERY_OPTION = SamplingOptions(
    temperature=0,
    top_p=0.5,
    top_k=1,
    seed=0,
    max_output_token_count=1,
    context_token_count=256,
    stop_sequences=["a", "b"],
    min_p=0,
    repeat_penalty=0,
    repeat_last_token_count=0,
    presence_penalty=0,
    frequency_penalty=0,
)


def passed_on(sampling):
    request = pb.QueryRequest(query="q", collection="c", sampling=sampling)
    return to_sampling(question_of(request).sampling)


def test_the_options_here_are_all_there_are():
    assert len(EVERY_OPTION.ListFields()) == len(SamplingOptions.DESCRIPTOR.fields)


@pytest.mark.parametrize(
    "field", list(SamplingOptions.DESCRIPTOR.fields), ids=lambda field: field.name
)
def test_each_option_is_passed_on_and_the_others_stay_absent(field):
    sampling = SamplingOptions(**{field.name: getattr(EVERY_OPTION, field.name)})
    assert passed_on(sampling) == sampling


def test_all_options_are_passed_on_together():
    assert passed_on(EVERY_OPTION) == EVERY_OPTION
