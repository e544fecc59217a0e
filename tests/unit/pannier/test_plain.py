"""Messages as plain data."""

import json

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pannier.balancer.v1 import balancer_service_pb2
from pannier.commands.plain import to_plain
from pannier.common.v1 import vector_pb2
from pannier.rag.v1 import corpus_service_pb2, rag_service_pb2


def test_counters_are_numbers_and_zero_counters_are_there():
    fleet = balancer_service_pb2.FleetStats(request_count=2**40)
    plain = to_plain(balancer_service_pb2.GetStatsResponse(fleet=fleet))
    assert plain["fleet"]["request_count"] == 2**40
    assert plain["fleet"]["failure_count"] == 0
    assert plain["backends"] == []


def test_a_duration_is_a_number_of_seconds_and_its_name_says_so():
    stats = balancer_service_pb2.BackendStats(average_response_time=Duration(nanos=250_000_000))
    assert to_plain(stats)["average_response_time_seconds"] == 0.25


def test_what_can_be_absent_and_is_has_no_entry():
    plain = to_plain(balancer_service_pb2.BackendStats())
    assert "average_response_time_seconds" not in plain
    assert "check_time" not in plain
    assert "vector_rank" not in to_plain(rag_service_pb2.PassageScore())


def test_an_optional_zero_that_was_set_is_there():
    assert to_plain(rag_service_pb2.PassageScore(vector_similarity=0))["vector_similarity"] == 0


def test_enums_are_names_and_unknown_ones_numbers():
    response = rag_service_pb2.QueryResponse(origin=rag_service_pb2.ANSWER_ORIGIN_CACHED)
    assert to_plain(response)["origin"] == "ANSWER_ORIGIN_CACHED"
    response.origin = 99  # type: ignore[assignment]  # a value of a later version
    assert to_plain(response)["origin"] == 99


def test_maps_times_and_bytes_survive_json():
    document = corpus_service_pb2.Document(
        metadata={"author": "Ada"}, create_time=Timestamp(seconds=1)
    )
    assert json.loads(json.dumps(to_plain(document)))["metadata"] == {"author": "Ada"}
    assert to_plain(document)["create_time"] == "1970-01-01T00:00:01Z"
    vector = vector_pb2.EmbeddingVector(float32_le=b"\x01\x02", dimension=1)
    assert to_plain(vector)["float32_le"] == "0102"
