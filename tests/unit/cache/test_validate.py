"""Each rule for requests, and that all breaches are told at once."""

import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration

from pannier.cache.v1 import cache_service_pb2 as pb
from pannier.common.v1 import generation_pb2 as generation
from pannier.common.v1 import vector_pb2
from services.cache.validate import validate
from services.common.errors import InvalidRequest

DIGEST = "0123456789abcdef" * 4
SPACE = pb.EmbeddingSpace(model_digest=DIGEST)
CHUNKS_KEY = pb.ChunksKey(content_digest=DIGEST, chunker_fingerprint="chunker 1")


def vector(*components: float) -> vector_pb2.EmbeddingVector:
    return vector_pb2.EmbeddingVector(
        float32_le=np.array(components, "<f4").tobytes(), dimension=len(components)
    )


def inference_key(**sampling: object) -> pb.InferenceKey:
    return pb.InferenceKey(
        model_digest=DIGEST,
        prompt=pb.Prompt(text="hello"),
        sampling=generation.SamplingOptions(**sampling),
    )


def answer(**changes: object) -> pb.Inference:
    fields: dict[str, object] = {
        "text": "hi",
        "finish_reason": generation.FINISH_REASON_STOP,
    } | changes
    return pb.Inference(**fields)


def stored(**changes: object) -> pb.StoreInferenceRequest:
    return pb.StoreInferenceRequest(key=inference_key(), inference=answer(**changes))


def entries(*each: pb.EmbeddingEntry) -> pb.StoreEmbeddingsRequest:
    return pb.StoreEmbeddingsRequest(space=SPACE, entries=each)


def said(*messages: generation.ChatMessage) -> pb.LookupInferenceRequest:
    conversation = pb.Conversation(messages=messages)
    key = pb.InferenceKey(model_digest=DIGEST, conversation=conversation)
    return pb.LookupInferenceRequest(key=key)


def span(**changes: object) -> pb.StoreChunksRequest:
    fields: dict[str, object] = {"char_start": 0, "char_end": 5, "token_count": 1} | changes
    chunks = pb.ChunkSet(spans=[pb.ChunkSpan(**fields)])
    return pb.StoreChunksRequest(key=CHUNKS_KEY, chunks=chunks)


USER = generation.CHAT_ROLE_USER
ASSISTANT = generation.CHAT_ROLE_ASSISTANT
GOOD = [
    pb.LookupEmbeddingsRequest(space=SPACE, texts=["a"] * 512),
    pb.LookupEmbeddingsRequest(space=pb.EmbeddingSpace(model_digest="AB" * 32), texts=[" "]),
    entries(pb.EmbeddingEntry(text="a", vector=vector(1.0))),
    pb.LookupInferenceRequest(key=inference_key(temperature=0, top_p=1, top_k=1), mode="rag"),
    said(generation.ChatMessage(role=USER, content="hello")),
    said(generation.ChatMessage(role=USER, images=[b"image"])),
    said(generation.ChatMessage(role=ASSISTANT, tool_calls=[generation.ToolCall(name="t")])),
    stored(),
    stored(finish_reason=99, generation_time=Duration(seconds=3)),
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
        pb.LookupInferenceRequest(key=pb.InferenceKey(prompt=pb.Prompt(text="a"))),
        "key.model_digest",
    ),
    (pb.LookupInferenceRequest(key=pb.InferenceKey(model_digest=DIGEST)), "key.input"),
    (
        pb.LookupInferenceRequest(
            key=pb.InferenceKey(model_digest=DIGEST, prompt=pb.Prompt(system="a"))
        ),
        "key.prompt.text",
    ),
    (said(), "key.conversation.messages"),
    (said(generation.ChatMessage(content="a")), "key.conversation.messages[0].role"),
    (said(generation.ChatMessage(role=USER)), "key.conversation.messages[0].content"),
    (
        said(generation.ChatMessage(role=ASSISTANT, thinking="hm")),
        "key.conversation.messages[0].content",
    ),
    (pb.LookupInferenceRequest(key=inference_key(min_p=1.1)), "key.sampling.min_p"),
    (pb.LookupInferenceRequest(key=inference_key(temperature=2.1)), "key.sampling.temperature"),
    (
        pb.LookupInferenceRequest(key=inference_key(temperature=float("nan"))),
        "key.sampling.temperature",
    ),
    (pb.LookupInferenceRequest(key=inference_key(top_p=0)), "key.sampling.top_p"),
    (pb.LookupInferenceRequest(key=inference_key(top_k=0)), "key.sampling.top_k"),
    (
        pb.LookupInferenceRequest(key=inference_key(max_output_token_count=0)),
        "key.sampling.max_output_token_count",
    ),
    (
        pb.LookupInferenceRequest(key=inference_key(context_token_count=255)),
        "key.sampling.context_token_count",
    ),
    (
        pb.LookupInferenceRequest(key=inference_key(stop_sequences=["a"] * 9)),
        "key.sampling.stop_sequences",
    ),
    (pb.StoreInferenceRequest(key=inference_key()), "inference.text"),
    (stored(text=""), "inference.text"),
    (
        stored(finish_reason=generation.FINISH_REASON_UNSPECIFIED),
        "inference.finish_reason",
    ),
    (stored(usage={"prompt_token_count": -1}), "inference.usage.prompt_token_count"),
    (stored(usage={"completion_token_count": -1}), "inference.usage.completion_token_count"),
    (stored(generation_time=Duration(seconds=-1)), "inference.generation_time"),
    (stored(generation_time=Duration(nanos=-1)), "inference.generation_time"),
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
    request = pb.StoreInferenceRequest(
        key=pb.InferenceKey(sampling=generation.SamplingOptions(top_k=0))
    )
    with pytest.raises(InvalidRequest) as caught:
        validate(request)
    assert [each.field for each in caught.value.violations] == [
        "key.model_digest",
        "key.input",
        "key.sampling.top_k",
        "inference.text",
        "inference.finish_reason",
    ]


def test_the_answer_stays_small_however_much_is_wrong() -> None:
    with pytest.raises(InvalidRequest) as caught:
        validate(pb.LookupEmbeddingsRequest(space=SPACE, texts=[""] * 512))
    assert len(caught.value.violations) == 16
