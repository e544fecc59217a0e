import pytest

from pannier.balancer.v1 import balancer_service_pb2 as pb
from services.balancer.convert_admin import (
    check_model,
    endpoint,
    explain_subject,
    grace_seconds,
    watch_interval_seconds,
)
from services.balancer.core.requests import EmbeddingRequest, GenerationRequest, Operation
from services.common.errors import InvalidRequest


def fields_at_fault(function, request):
    with pytest.raises(InvalidRequest) as caught:
        function(request)
    return [each.field for each in caught.value.violations]


def test_an_address_may_say_how_the_server_differs():
    found = endpoint(pb.AddBackendRequest(endpoint="http://10.0.0.7:11434?slots=4&models=2"))
    assert (found.backend_id, found.slot_count, found.model_limit) == ("10.0.0.7:11434", 4, 2)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "10.0.0.7:11434",
        "http://10.0.0.7",
        "ftp://10.0.0.7:11434",
        "http://10.0.0.7:11434/api",
        "http://user:secret@10.0.0.7:11434",
        "http://10.0.0.7:11434?slots=0",
        "http://10.0.0.7:11434?size=3",
        "http://10.0.0.7:99999",
        "http://[::1:11434",
    ],
)
def test_what_is_no_address_is_the_endpoints_fault(address):
    assert fields_at_fault(endpoint, pb.AddBackendRequest(endpoint=address)) == ["endpoint"]


@pytest.mark.parametrize("name", ["", " ", "a b", "a/b/c/d", "-a", "a:"])
def test_what_is_no_name_is_the_models_fault(name):
    assert fields_at_fault(check_model, name) == ["model"]


def test_a_grace_has_a_default_and_bounds():
    def request(**grace):
        return pb.RemoveBackendRequest(backend_id="h:1", grace=grace)

    assert grace_seconds(pb.RemoveBackendRequest()) == 60.0
    assert grace_seconds(request()) == 0.0
    assert grace_seconds(request(seconds=3600)) == 3600.0
    assert grace_seconds(request(nanos=500_000_000)) == 0.5
    assert fields_at_fault(grace_seconds, request(seconds=3600, nanos=1)) == ["grace"]
    assert fields_at_fault(grace_seconds, request(nanos=-1)) == ["grace"]


def test_an_interval_has_a_default_and_bounds():
    def request(**interval):
        return pb.WatchStatsRequest(interval=interval)

    assert watch_interval_seconds(pb.WatchStatsRequest()) == 1.0
    assert watch_interval_seconds(request(nanos=100_000_000)) == 0.1
    assert watch_interval_seconds(request(seconds=60)) == 60.0
    assert fields_at_fault(watch_interval_seconds, request()) == ["interval"]
    assert fields_at_fault(watch_interval_seconds, request(seconds=61)) == ["interval"]


def test_a_subject_is_a_request_or_the_id_of_a_decision():
    chat = {"model": "m", "messages": [{"role": "CHAT_ROLE_USER", "content": "a"}]}
    found = explain_subject(pb.ExplainRequest(chat=chat))
    assert isinstance(found, GenerationRequest)
    assert found.operation is Operation.CHAT
    found = explain_subject(pb.ExplainRequest(generate={"model": "m", "prompt": "a"}))
    assert isinstance(found, GenerationRequest)
    assert found.operation is Operation.GENERATE
    found = explain_subject(pb.ExplainRequest(embed={"model": "m", "texts": ["a", "b"]}))
    assert isinstance(found, EmbeddingRequest)
    assert explain_subject(pb.ExplainRequest(decision_id="abc-1")) == "abc-1"


@pytest.mark.parametrize("request_", [pb.ExplainRequest(), pb.ExplainRequest(decision_id="")])
def test_without_a_subject_there_is_nothing_to_explain(request_):
    assert fields_at_fault(explain_subject, request_) == ["subject"]


def test_faults_of_a_subject_are_named_by_their_paths_within_it():
    request = pb.ExplainRequest(embed={"model": "", "texts": ["a", ""]})
    assert set(fields_at_fault(explain_subject, request)) == {"embed.model", "embed.texts[1]"}
