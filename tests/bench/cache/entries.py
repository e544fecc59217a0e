"""Keys and values that cases store."""

import random
from collections.abc import Sequence

import numpy as np

from pannier.cache.v1 import cache_service_pb2 as pb
from pannier.cache.v1 import semantic_pb2
from pannier.common.v1 import generation_pb2, vector_pb2

__all__ = ["MODEL_DIGEST", "answer", "inference_key", "partition", "vectors", "words"]

MODEL_DIGEST = "5a" * 32
EMBEDDING_DIGEST = "e1" * 32
_WORDS = (
    *("the", "model", "reads", "a", "prompt", "and", "writes", "an", "answer", "of", "some"),
    *("length", "about", "balance", "load", "cache", "server", "document", "passage", "token"),
    *("vector", "index", "replica", "lease", "stream", "store", "time"),
)


def words(count: int, seed: int) -> str:
    """Returns text of so many words."""
    return " ".join(random.Random(seed).choices(_WORDS, k=count))


def inference_key(number: int) -> pb.InferenceKey:
    """Returns the key of one of many prompts of about 3 KB."""
    return pb.InferenceKey(
        model_digest=MODEL_DIGEST,
        prompt=pb.Prompt(text=f"{number}: {words(450, number)}"),
        sampling=generation_pb2.SamplingOptions(temperature=0.0),
    )


def answer(number: int) -> pb.Inference:
    """Returns an answer of about 3 KB."""
    inference = pb.Inference(
        text=words(480, -number - 1),
        finish_reason=generation_pb2.FINISH_REASON_STOP,
        usage=generation_pb2.TokenUsage(prompt_token_count=600, completion_token_count=640),
    )
    inference.generation_time.FromSeconds(8)
    return inference


def vectors(count: int, dimension: int, seed: int) -> Sequence[vector_pb2.EmbeddingVector]:
    """Returns random vectors of unit length."""
    matrix = np.random.default_rng(seed).standard_normal((count, dimension), dtype=np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    return [
        vector_pb2.EmbeddingVector(float32_le=row.astype("<f4").tobytes(), dimension=dimension)
        for row in matrix
    ]


def partition() -> semantic_pb2.SemanticPartition:
    """Returns the partition that semantic cases use."""
    return semantic_pb2.SemanticPartition(
        embedding_model_digest=EMBEDDING_DIGEST, model_digest=MODEL_DIGEST
    )
