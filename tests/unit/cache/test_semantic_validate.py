"""Requests of the semantic layer are refused for every rule they break, each by its field."""

import numpy as np
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration

from pannier.cache.v1 import control_pb2
from pannier.cache.v1 import semantic_pb2 as pb
from pannier.common.v1 import generation_pb2, vector_pb2
from services.cache.semantic_validate import validate_lookup, validate_report, validate_store
from services.common.errors import InvalidRequest

DIGEST = "0123456789abcdef" * 4
PARTITION = pb.SemanticPartition(embedding_model_digest=DIGEST)
ENTRY_ID = f"{'A' * 27}.{'A' * 11}"


def vector(*components: float) -> vector_pb2.EmbeddingVector:
    data = np.array(components, dtype="<f4").tobytes()
    return vector_pb2.EmbeddingVector(float32_le=data, dimension=len(components))


def lookup(**fields) -> pb.LookupSemanticRequest:
    return pb.LookupSemanticRequest(**({"partition": PARTITION, "query": "how?"} | fields))


def store(**fields) -> pb.StoreSemanticRequest:
    given = {
        "partition": PARTITION,
        "query": "how?",
        "vector": vector(1, 0),
        "answer": AnyMessage(value=b"so"),
    }
    return pb.StoreSemanticRequest(**(given | fields))


def report(**fields) -> pb.ReportOutcomeRequest:
    given = {
        "partition": PARTITION,
        "entry_id": ENTRY_ID,
        "similarity": 0.96,
        "verdict": pb.MATCH_VERDICT_RIGHT,
        "judge": pb.MATCH_JUDGE_PERSON,
    }
    return pb.ReportOutcomeRequest(**(given | fields))


def refused_fields(check, *arguments, **options) -> list[str]:
    with pytest.raises(InvalidRequest) as caught:
        check(*arguments, **options)
    return [each.field for each in caught.value.violations]


def test_proper_requests_pass():
    validate_lookup(lookup())
    validate_lookup(lookup(vector=vector(1, 0), min_similarity=1.0, collections=["a"]))
    validate_store(store(), payload_bytes=10)
    validate_report(report())


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"partition": None}, "partition"),
        ({"partition": pb.SemanticPartition()}, "partition.embedding_model_digest"),
        (
            {"partition": pb.SemanticPartition(embedding_model_digest=DIGEST, model_digest="x")},
            "partition.model_digest",
        ),
        (
            {"partition": pb.SemanticPartition(embedding_model_digest=DIGEST, namespace="A B")},
            "partition.namespace",
        ),
        (
            {
                "partition": pb.SemanticPartition(
                    embedding_model_digest=DIGEST, access_fingerprint="x" * 201
                )
            },
            "partition.access_fingerprint",
        ),
        (
            {
                "partition": pb.SemanticPartition(
                    embedding_model_digest=DIGEST, configuration_fingerprint="x" * 201
                )
            },
            "partition.configuration_fingerprint",
        ),
        (
            {"partition": pb.SemanticPartition(embedding_model_digest=DIGEST, language="x" * 36)},
            "partition.language",
        ),
        ({"query": ""}, "query"),
        ({"query": " \t\n"}, "query"),
        ({"query": "x" * 8001}, "query"),
        ({"vector": vector(0, 0)}, "vector.float32_le"),
        ({"vector": vector(1, float("nan"))}, "vector.float32_le"),
        ({"vector": vector(1, float("inf"))}, "vector.float32_le"),
        (
            {"vector": vector_pb2.EmbeddingVector(float32_le=b"1234", dimension=2)},
            "vector.float32_le",
        ),
        ({"vector": vector_pb2.EmbeddingVector(dimension=0)}, "vector.dimension"),
    ],
)
def test_faults_of_lookups_and_stores_alike(fields, refused):
    assert refused_fields(validate_lookup, lookup(**fields)) == [refused]
    assert refused_fields(validate_store, store(**fields), payload_bytes=10) == [refused]


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"min_similarity": -0.01}, "min_similarity"),
        ({"min_similarity": 1.01}, "min_similarity"),
        ({"min_similarity": float("nan")}, "min_similarity"),
        ({"collections": ["ok", ""]}, "collections[1]"),
        ({"collections": ["c"] * 65}, "collections"),
        ({"control": control_pb2.LookupControl(max_age=Duration())}, "control.max_age"),
    ],
)
def test_faults_of_lookups(fields, refused):
    assert refused_fields(validate_lookup, lookup(**fields)) == [refused]


@pytest.mark.parametrize(
    ("fields", "payload_bytes", "refused"),
    [
        ({"vector": None}, 10, "vector"),
        ({"answer": None}, 10, "answer"),
        ({}, 1024 * 1024 + 1, "answer"),
        ({"evidence": [pb.Evidence(passage_id="p")]}, 10, "evidence[0].document_id"),
        ({"evidence": [pb.Evidence(document_id="d")]}, 10, "evidence[0].passage_id"),
        ({"evidence": [pb.Evidence(document_id="d", passage_id="p")] * 65}, 10, "evidence"),
        (
            {"evidence": [pb.Evidence(document_id="d", passage_id="p", content_digest="x" * 201)]},
            10,
            "evidence[0].content_digest",
        ),
        (
            {"control": control_pb2.StoreControl(ttl=Duration(seconds=86_401))},
            10,
            "control.ttl",
        ),
        (
            {"usage": generation_pb2.TokenUsage(prompt_token_count=-1)},
            10,
            "usage.prompt_token_count",
        ),
        ({"generation_time": Duration(seconds=-1)}, 10, "generation_time"),
    ],
)
def test_faults_of_stores(fields, payload_bytes, refused):
    request = store(**fields)
    assert refused_fields(validate_store, request, payload_bytes=payload_bytes) == [refused]


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"partition": None}, "partition"),
        ({"entry_id": ""}, "entry_id"),
        ({"entry_id": "x.y"}, "entry_id"),
        ({"similarity": 1.01}, "similarity"),
        ({"similarity": float("nan")}, "similarity"),
        ({"verdict": 0}, "verdict"),
        ({"verdict": 99}, "verdict"),
        ({"judge": 0}, "judge"),
        ({"judge": 99}, "judge"),
    ],
)
def test_faults_of_reports(fields, refused):
    assert refused_fields(validate_report, report(**fields)) == [refused]


def test_all_faults_are_named_at_once():
    request = pb.StoreSemanticRequest(query=" ", evidence=[pb.Evidence()])
    assert refused_fields(validate_store, request, payload_bytes=0) == [
        "partition",
        "query",
        "vector",
        "answer",
        "evidence[0].document_id",
        "evidence[0].passage_id",
    ]
