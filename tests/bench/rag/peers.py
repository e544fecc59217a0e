"""A balancer that answers at once, as a process: `python -m tests.bench.rag.peers`.

It embeds by the marks of `topics`, or with the real MiniLM and a file of what it has computed
before; it answers every chat with the same sentence. So what is measured is rag.
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import grpc
import numpy as np
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.balancer.v1.balancer_service_pb2_grpc import (
    BalancerServiceServicer,
    add_BalancerServiceServicer_to_server,
)
from pannier.common.v1 import generation_pb2, vector_pb2
from services.common.server import PING_OPTIONS
from tests.bench.rag.topics import vectors_of
from tests.kit.minilm import Embedder

EMBEDDING_DIGEST, CHAT_DIGEST = "e1" * 32, "c4" * 32
# After so many new vectors they are written to the file.
_SAVED_COUNT = 128
ANSWER = "The section about it says so in its first sentence [1]."


class RememberedMiniLM:
    """MiniLM that keeps its vectors in a folder, one file for all.

    Args:
        folder: Where it keeps them.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "minilm-vectors.npz"
        self._known: dict[str, np.ndarray] = {}
        self._encoder: Embedder | None = None
        self._unsaved_count = 0
        if self._path.is_file():
            with np.load(self._path) as stored:
                self._known = dict(zip(stored["keys"].tolist(), stored["rows"], strict=True))

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Returns the texts' vectors, one row each."""
        keys = [blake2b(text.encode(), digest_size=16).hexdigest() for text in texts]
        missing = {
            key: text for key, text in zip(keys, texts, strict=True) if key not in self._known
        }
        if missing:
            self._encoder = self._encoder or Embedder()
            rows = self._encoder.embed(list(missing.values()))
            self._known.update(zip(missing, rows, strict=True))
            self._unsaved_count += len(missing)
            if self._unsaved_count >= _SAVED_COUNT:
                self.save()
        return np.stack([self._known[key] for key in keys])

    def save(self) -> None:
        """Writes what is known."""
        if not self._unsaved_count:
            return
        self._unsaved_count = 0
        self._path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._path.with_suffix(".part.npz")
        np.savez(unfinished, keys=list(self._known), rows=np.stack(list(self._known.values())))
        unfinished.rename(self._path)


class InstantBalancer(BalancerServiceServicer):
    """A fleet that needs no time.

    Args:
        remembered: Embeds; None for vectors by marks.
    """

    def __init__(self, remembered: RememberedMiniLM | None) -> None:
        self._remembered = remembered

    async def ListModels(self, request, context):
        """Lists one model that embeds and one that answers."""
        return pb.ListModelsResponse(
            models=[
                pb.Model(
                    name="all-minilm:latest",
                    digest=EMBEDDING_DIGEST,
                    capabilities=[pb.MODEL_CAPABILITY_EMBEDDING],
                    context_token_count=256,
                ),
                pb.Model(
                    name="instant:latest",
                    digest=CHAT_DIGEST,
                    capabilities=[pb.MODEL_CAPABILITY_COMPLETION],
                ),
            ]
        )

    async def Embed(self, request, context):
        """Embeds."""
        texts = list(request.texts)
        if self._remembered is None:
            rows = vectors_of(texts)
        else:
            rows = await asyncio.to_thread(self._remembered.embed, texts)
        return pb.EmbedResponse(
            vectors=[
                vector_pb2.EmbeddingVector(
                    float32_le=row.astype("<f4").tobytes(), dimension=len(row)
                )
                for row in rows
            ],
            model=request.model,
            model_digest=EMBEDDING_DIGEST,
            backend_id="instant:1",
            attempt_count=1,
        )

    async def Chat(self, request, context):
        """Answers."""
        yield pb.ChatResponse(
            started=pb.GenerationStarted(
                model="instant:latest", model_digest=CHAT_DIGEST, backend_id="instant:1"
            )
        )
        yield pb.ChatResponse(text_delta=ANSWER)
        yield pb.ChatResponse(
            completed=pb.GenerationCompleted(
                finish_reason=generation_pb2.FINISH_REASON_STOP,
                usage=generation_pb2.TokenUsage(prompt_token_count=900, completion_token_count=14),
            )
        )


async def _serve(port: int, remembered: RememberedMiniLM | None) -> None:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 64 << 20), *PING_OPTIONS])
    add_BalancerServiceServicer_to_server(InstantBalancer(remembered), server)
    servicer = health.aio.HealthServicer()
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    await server.stop(0.2)
    if remembered is not None:
        remembered.save()


def main() -> None:
    """Serves until it is told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument(
        "--minilm", type=Path, help="embed with MiniLM, and remember in this folder"
    )
    options = parser.parse_args()
    remembered = RememberedMiniLM(options.minilm) if options.minilm else None
    asyncio.run(_serve(options.port, remembered))


if __name__ == "__main__":
    sys.exit(main())
