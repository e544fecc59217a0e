"""Each rule for requests, and that all breaches are told at once."""

import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pannier.cache.v1 import cache_service_pb2 as pb
from pannier.cache.v1 import control_pb2
from pannier.common.v1 import vector_pb2
from services.cache.core.layers import Layer
from services.cache.validate import keeping_violations, validate
from services.common.errors import InvalidRequest

DIGEST = "0123456789abcdef" * 4
SPACE = pb.EmbeddingSpace(model_digest=DIGEST)
CHUNKS_KEY = pb.ChunksKey(content_digest=DIGEST, chunker_fingerprint="chunker 1")


def vector(*components: float) -> vector_pb2.EmbeddingVector:
    return vector_pb2.EmbeddingVector(
        float32_le=np.array(components, "<f4").tobytes(), dimension=len(components)
    )


def entries(
    *each: pb.EmbeddingEntry, space: pb.EmbeddingSpace = SPACE
) -> pb.StoreEmbeddingsRequest:
    return pb.StoreEmbeddingsRequest(space=space, entries=each)


def looked_up(**control: object) -> pb.LookupEmbeddingsRequest:
    return pb.LookupEmbeddingsRequest(space=SPACE, texts=["a"], control=control)


def kept(**control: object) -> pb.StoreEmbeddingsRequest:
    entry = pb.EmbeddingEntry(text="a", vector=vector(1.0))
    return pb.StoreEmbeddingsRequest(space=SPACE, entries=[entry], control=control)


def document(collection: str, document_id: str) -> dict[str, object]:
    return {"document": {"collection": collection, "document_id": document_id}}


def span(**changes: object) -> pb.StoreChunksRequest:
    fields: dict[str, object] = {"char_start": 0, "char_end": 5, "token_count": 1} | changes
    chunks = pb.ChunkSet(spans=[pb.ChunkSpan(**fields)])
    return pb.StoreChunksRequest(key=CHUNKS_KEY, chunks=chunks)


GOOD = [
    pb.LookupEmbeddingsRequest(space=SPACE, texts=["a"] * 512),
    pb.LookupEmbeddingsRequest(space=pb.EmbeddingSpace(model_digest="AB" * 32), texts=[" "]),
    entries(pb.EmbeddingEntry(text="a", vector=vector(1.0))),
    entries(
        pb.EmbeddingEntry(text="a", vector=vector(1.0, 2.0)),
        pb.EmbeddingEntry(text="b", vector=vector(3.0, 4.0)),
        space=pb.EmbeddingSpace(model_digest=DIGEST, namespace="a-z_0.9", dimension=2),
    ),
    looked_up(bypass=True),
    looked_up(max_age=Duration(nanos=1), min_create_time=Timestamp(seconds=5, nanos=999_999_999)),
    kept(ttl=Duration(seconds=7 * 86_400)),
    kept(ttl=Duration(nanos=1), basis_time=Timestamp()),
    kept(tags=[{"custom": "x"}] * 16),
    kept(tags=[{"collection": "c" * 200}, document("c", "d" * 1_000)]),
    pb.LookupChunksRequest(key=CHUNKS_KEY),
    span(),
    pb.StoreChunksRequest(key=CHUNKS_KEY, chunks=pb.ChunkSet()),
]
BAD = [
    (pb.LookupEmbeddingsRequest(texts=["a"]), "space.model_digest"),
    (
        pb.LookupEmbeddingsRequest(space=pb.EmbeddingSpace(model_digest="g" * 64), texts=["a"]),
        "space.model_digest",
    ),
    (
        pb.LookupEmbeddingsRequest(space=pb.EmbeddingSpace(model_digest=DIGEST + "\n"), texts="a"),
        "space.model_digest",
    ),
    (pb.LookupEmbeddingsRequest(space=SPACE), "texts"),
    (pb.LookupEmbeddingsRequest(space=SPACE, texts=["a"] * 513), "texts"),
    (pb.LookupEmbeddingsRequest(space=SPACE, texts=["a", ""]), "texts[1]"),
    (entries(), "entries"),
    (entries(pb.EmbeddingEntry(vector=vector(1.0))), "entries[0].text"),
    (entries(pb.EmbeddingEntry(text="a")), "entries[0].vector"),
    (
        entries(
            pb.EmbeddingEntry(text="a", vector=vector(1.0)),
            pb.EmbeddingEntry(text="b", vector=vector(float("nan"))),
        ),
        "entries[1].vector.float32_le",
    ),
    (
        entries(pb.EmbeddingEntry(text="a", vector=vector(float("inf")))),
        "entries[0].vector.float32_le",
    ),
    (entries(pb.EmbeddingEntry(text="a", vector=vector(0.0))), "entries[0].vector.float32_le"),
    (
        entries(pb.EmbeddingEntry(text="a", vector={"float32_le": b"1234", "dimension": 2})),
        "entries[0].vector.float32_le",
    ),
    (
        entries(pb.EmbeddingEntry(text="a", vector={"float32_le": b"1234"})),
        "entries[0].vector.dimension",
    ),
    (
        entries(
            pb.EmbeddingEntry(text="a", vector=vector(1.0, 2.0)),
            pb.EmbeddingEntry(text="b", vector=vector(3.0)),
        ),
        "entries[1].vector.dimension",
    ),
    (
        entries(
            pb.EmbeddingEntry(text="a", vector=vector(1.0, 2.0)),
            space=pb.EmbeddingSpace(model_digest=DIGEST, dimension=3),
        ),
        "entries[0].vector.dimension",
    ),
    (
        pb.LookupEmbeddingsRequest(
            space=pb.EmbeddingSpace(model_digest=DIGEST, dimension=0), texts=["a"]
        ),
        "space.dimension",
    ),
    (
        pb.LookupEmbeddingsRequest(
            space=pb.EmbeddingSpace(model_digest=DIGEST, namespace="Upper"), texts=["a"]
        ),
        "space.namespace",
    ),
    (
        pb.LookupEmbeddingsRequest(
            space=pb.EmbeddingSpace(model_digest=DIGEST, namespace="a" * 65), texts=["a"]
        ),
        "space.namespace",
    ),
    (
        pb.LookupChunksRequest(
            key={"content_digest": DIGEST, "chunker_fingerprint": "a", "namespace": "a b"}
        ),
        "key.namespace",
    ),
    (looked_up(max_age=Duration()), "control.max_age"),
    (looked_up(max_age=Duration(seconds=-1)), "control.max_age"),
    (looked_up(max_age=Duration(nanos=-1)), "control.max_age"),
    (looked_up(max_age=Duration(seconds=315_576_000_001)), "control.max_age"),
    (looked_up(min_create_time=Timestamp(seconds=-1)), "control.min_create_time"),
    (looked_up(min_create_time=Timestamp(nanos=-1)), "control.min_create_time"),
    (looked_up(min_create_time=Timestamp(nanos=1_000_000_000)), "control.min_create_time"),
    (looked_up(min_create_time=Timestamp(seconds=253_402_300_800)), "control.min_create_time"),
    (kept(ttl=Duration()), "control.ttl"),
    (kept(ttl=Duration(seconds=-5)), "control.ttl"),
    (kept(ttl=Duration(seconds=7 * 86_400, nanos=1)), "control.ttl"),
    (kept(basis_time=Timestamp(seconds=-1)), "control.basis_time"),
    (kept(tags=[{"custom": "x"}] * 17), "control.tags"),
    (kept(tags=[{"custom": "x"}, {}]), "control.tags[1]"),
    (kept(tags=[{"custom": ""}]), "control.tags[0].custom"),
    (kept(tags=[{"custom": "x" * 201}]), "control.tags[0].custom"),
    (kept(tags=[{"collection": ""}]), "control.tags[0].collection"),
    (kept(tags=[document("", "d")]), "control.tags[0].document.collection"),
    (kept(tags=[document("c", "")]), "control.tags[0].document.document_id"),
    (kept(tags=[document("c", "d" * 1_001)]), "control.tags[0].document.document_id"),
    (pb.LookupChunksRequest(key={"chunker_fingerprint": "a"}), "key.content_digest"),
    (pb.LookupChunksRequest(key={"content_digest": DIGEST}), "key.chunker_fingerprint"),
    (
        pb.LookupChunksRequest(key={"content_digest": DIGEST, "chunker_fingerprint": "a" * 201}),
        "key.chunker_fingerprint",
    ),
    (pb.StoreChunksRequest(key=CHUNKS_KEY), "chunks"),
    (span(char_start=-1), "chunks.spans[0].char_start"),
    (span(char_end=0), "chunks.spans[0].char_end"),
    (span(token_count=0), "chunks.spans[0].token_count"),
]


@pytest.mark.parametrize("request_", GOOD)
def test_a_proper_request_passes(request_) -> None:
    validate(request_)


@pytest.mark.parametrize(("request_", "field"), BAD)
def test_the_field_at_fault_is_named(request_, field) -> None:
    with pytest.raises(InvalidRequest) as caught:
        validate(request_)
    assert field in [each.field for each in caught.value.violations]


def test_all_breaches_are_told_at_once() -> None:
    request = pb.StoreEmbeddingsRequest(
        space=pb.EmbeddingSpace(namespace="A", dimension=9_000),
        entries=[pb.EmbeddingEntry()],
        control={"ttl": Duration(seconds=-1), "tags": [{"custom": ""}]},
    )
    with pytest.raises(InvalidRequest) as caught:
        validate(request)
    assert [each.field for each in caught.value.violations] == [
        "space.model_digest",
        "space.namespace",
        "space.dimension",
        "control.ttl",
        "control.tags[0].custom",
        "entries[0].text",
        "entries[0].vector",
    ]


@pytest.mark.parametrize(
    ("layer", "hours"),
    [(Layer.EMBEDDING, 168), (Layer.INFERENCE, 24), (Layer.CHUNK, 720), (Layer.SEMANTIC, 24)],
)
def test_a_time_to_live_is_at_most_that_of_the_layer(layer, hours) -> None:
    for seconds, fields in ((hours * 3_600, []), (hours * 3_600 + 1, ["control.ttl"])):
        control = control_pb2.StoreControl(ttl=Duration(seconds=seconds))
        violations = keeping_violations("control", control, layer=layer)
        assert [each.field for each in violations] == fields


def test_the_answer_stays_small_however_much_is_wrong() -> None:
    with pytest.raises(InvalidRequest) as caught:
        validate(pb.LookupEmbeddingsRequest(space=SPACE, texts=[""] * 512))
    assert len(caught.value.violations) == 16
